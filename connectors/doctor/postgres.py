"""Checks of PostgreSQL: settings, the connector's role, publications, replication slots, replica identity."""

from __future__ import annotations

from collections.abc import Iterator

from connectors.doctor.facts import PostgresFacts, ReplicationSlot
from connectors.doctor.findings import Check, Problem, error, note, warning
from connectors.outboxes.model import Share, read_share
from connectors.slots import format_bytes
from schemas.outboxes import NAME, Outbox, find_outbox

CDC_ROLE = "chat_cdc"
OUTBOX, HEARTBEAT = "public.outbox", "public.cdc_heartbeat"
PRIVILEGES = {
    OUTBOX: frozenset({"SELECT"}),
    HEARTBEAT: frozenset({"SELECT", "INSERT", "UPDATE"}),
}
"""What the connector's role needs; everything else is too much."""

OLDEST_BEAT_SECONDS = 30.0
OLDEST_PREPARED_SECONDS = 300.0
LEAST_KEEP_BYTES = 1024**3
MIGRATE = "run python -m ingest_api.migrate as the database's owner"
RECOVER = "run chat4all-connectors recover, and with --apply when you agree with what it says"


def outboxes(facts: PostgresFacts) -> list[Outbox]:
    """The outboxes that there are: one per publication of that name."""
    return sorted(outbox for name in facts.publications if (outbox := find_outbox(name)) is not None)


def _version(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.version < 170000:
        yield error(
            f"PostgreSQL is version {facts.version // 10000}; replication slots survive a failover from 17 on.",
            "upgrade PostgreSQL to 17 or newer.",
        )


def _wal_level(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.settings["wal_level"] != "logical":
        yield error(
            f"wal_level is {facts.settings['wal_level']}, so nothing can be streamed.",
            "ALTER SYSTEM SET wal_level = logical, and restart PostgreSQL.",
        )


def _commits(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.settings["synchronous_commit"] == "off":
        yield warning(
            "synchronous_commit is off: what is accepted may be lost in a crash, and events come some 200 ms late.",
            "ALTER SYSTEM SET synchronous_commit = on, and reload.",
        )


def _keep(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.keep_bytes is None:
        yield warning(
            "max_slot_wal_keep_size is -1: while a connector is away the write-ahead log grows until the disk is full.",
            "ALTER SYSTEM SET max_slot_wal_keep_size to what the disk can spare, and reload.",
        )
    elif facts.keep_bytes < LEAST_KEEP_BYTES:
        yield warning(
            f"max_slot_wal_keep_size is {format_bytes(facts.keep_bytes)}: a slot is given up after a short outage, and"
            " what it has not streamed is lost.",
            "ALTER SYSTEM SET max_slot_wal_keep_size to what an outage of hours writes, and reload.",
        )


def _idle(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.settings.get("idle_replication_slot_timeout", "0") != "0":
        yield error(
            f"idle_replication_slot_timeout is {facts.settings['idle_replication_slot_timeout']}: a connector that is"
            " away for longer loses its slot, and with it events.",
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0, and reload.",
        )


def _sender(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.settings["wal_sender_timeout"] == "0":
        yield warning(
            "wal_sender_timeout is 0: a worker that vanished keeps its slot, and whoever takes over cannot read it.",
            "ALTER SYSTEM SET wal_sender_timeout = '60s', and reload.",
        )


def _room(facts: PostgresFacts) -> Iterator[Problem]:
    used = len(facts.slots)
    for setting in ("max_replication_slots", "max_wal_senders"):
        if used >= int(facts.settings[setting]):
            yield warning(
                f"{setting} is {facts.settings[setting]}, and there are {used} slots: none can be added.",
                f"raise {setting} and restart PostgreSQL, or drop a slot that nobody reads.",
            )


def _role(facts: PostgresFacts) -> Iterator[Problem]:
    role = facts.cdc_role
    if role is None:
        yield error(f"There is no role {CDC_ROLE}, as which connectors log in.", f"{MIGRATE}.")
        return
    for attribute in ("login", "replication"):
        if attribute not in role.attributes:
            yield error(
                f"The role {CDC_ROLE} has no {attribute.upper()}, so no slot can be read.",
                f"ALTER ROLE {CDC_ROLE} {attribute.upper()}.",
            )
    for table, needed in PRIVILEGES.items():
        for privilege in sorted(needed - role.privileges.get(table, frozenset())):
            yield error(
                f"The role {CDC_ROLE} lacks {privilege} on {table}.", f"GRANT {privilege} ON {table} TO {CDC_ROLE}."
            )


def _excess(facts: PostgresFacts) -> Iterator[Problem]:
    role = facts.cdc_role
    if role is None:
        return
    for attribute in sorted(role.attributes - {"login", "replication"}):
        yield warning(
            f"The role {CDC_ROLE} has {attribute.upper()}, which it does not need.",
            f"ALTER ROLE {CDC_ROLE} NO{attribute.upper()}.",
        )
    for group in sorted(role.member_of):
        yield warning(f"The role {CDC_ROLE} is a member of {group}.", f"REVOKE {group} FROM {CDC_ROLE}.")
    for table, held in sorted(role.privileges.items()):
        excess = ", ".join(sorted(held - PRIVILEGES.get(table, frozenset())))
        if excess:
            yield warning(
                f"The role {CDC_ROLE} has {excess} on {table}, which it does not need.",
                f"REVOKE {excess} ON {table} FROM {CDC_ROLE}.",
            )


def _publications(facts: PostgresFacts) -> Iterator[Problem]:
    found = outboxes(facts)
    if not found or found[0].number != 0:
        yield error(f"The publication {NAME} is missing.", f"{MIGRATE}.")
    for outbox in found:
        publication = facts.publications[outbox.slot]
        if publication.is_for_all_tables:
            yield error(
                f"The publication {outbox.slot} holds all tables: everything is streamed, users and passwords too.",
                f"drop it and {MIGRATE}.",
            )
            continue
        for table in (OUTBOX, HEARTBEAT):
            if table not in publication.tables:
                yield error(
                    f"The publication {outbox.slot} lacks {table}.",
                    f"ALTER PUBLICATION {outbox.slot} ADD TABLE {table}.",
                )
        for table in sorted(publication.tables.keys() - {OUTBOX, HEARTBEAT}):
            yield warning(
                f"The publication {outbox.slot} holds {table}, which is read and thrown away.",
                f"ALTER PUBLICATION {outbox.slot} DROP TABLE {table}.",
            )
        wanted = {"insert", "update"}
        if publication.operations != wanted:
            yield (warning if wanted <= publication.operations else error)(
                f"The publication {outbox.slot} publishes {', '.join(sorted(publication.operations)) or 'nothing'};"
                " inserts carry events, updates the heartbeat.",
                f"ALTER PUBLICATION {outbox.slot} SET (publish = 'insert, update').",
            )


def _shares(facts: PostgresFacts) -> Iterator[Problem]:
    found = outboxes(facts)
    for outbox in found:
        tables = facts.publications[outbox.slot].tables
        expected = Share(outbox.number, len(found))
        if OUTBOX in tables and read_share(tables[OUTBOX]) != expected:
            yield error(
                f"The publication {outbox.slot} is not for {expected.describe()}, though there are {len(found)}"
                " outboxes: some conversations are streamed by two connectors or by none.",
                "run chat4all-connectors outboxes, and with --apply when you agree with what it says.",
            )


def _slots(facts: PostgresFacts) -> Iterator[Problem]:
    for outbox in outboxes(facts):
        slot = facts.slots.get(outbox.slot)
        if slot is None:
            yield error(
                f"The replication slot {outbox.slot} is missing: what is written now is not streamed.", f"{RECOVER}."
            )
        else:
            yield from _slot(facts, slot)


def _slot(facts: PostgresFacts, slot: ReplicationSlot) -> Iterator[Problem]:
    drop = f"stop its connector, SELECT pg_drop_replication_slot('{slot.name}'), and {RECOVER}."
    if slot.wal_status == "lost" or slot.invalidation:
        yield error(
            f"The replication slot {slot.name} is lost ({slot.invalidation or 'its write-ahead log was removed'}).",
            f"{RECOVER}.",
        )
        return
    if slot.plugin != "pgoutput" or slot.database != facts.database:
        yield error(f"The slot {slot.name} is of {slot.plugin} in {slot.database}, so no connector can read it.", drop)
    if not slot.is_active:
        yield error(
            f"Nobody reads the slot {slot.name}; it holds {format_bytes(slot.held_bytes)} of write-ahead log.",
            "see why its connector does not run (chat4all-connectors status), and bring it back.",
        )
    elif slot.reader not in (None, CDC_ROLE):
        yield error(
            f"The slot {slot.name} is read by the role {slot.reader}, not by {CDC_ROLE}: its events go elsewhere.",
            "find out who that is (pg_stat_replication), and end it.",
        )
    if slot.wal_status == "unreserved":
        yield error(
            f"The slot {slot.name} is over max_slot_wal_keep_size: the next checkpoint may take what it needs.",
            "bring its connector back now; raise max_slot_wal_keep_size and reload if the disk has room.",
        )
    if not slot.is_failover:
        yield warning(
            f"The slot {slot.name} is not made for failover: a standby that takes over has no slot.",
            f"ALTER_REPLICATION_SLOT {slot.name} (FAILOVER true) over a replication connection, or {drop}",
        )


def _strays(facts: PostgresFacts) -> Iterator[Problem]:
    for slot in facts.slots.values():
        outbox = find_outbox(slot.name)
        if (outbox is None or outbox.slot not in facts.publications) and not slot.is_active and not slot.is_synced:
            yield warning(
                f"Nobody reads the slot {slot.name}, and no outbox has it; it holds {format_bytes(slot.held_bytes)} of"
                " write-ahead log, and will until it is lost.",
                f"SELECT pg_drop_replication_slot('{slot.name}') if nobody needs it.",
            )


def _failover(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.standbys and not facts.settings.get("synchronized_standby_slots"):
        yield warning(
            "There are standbys and synchronized_standby_slots is empty: a connector can be ahead of the standby that"
            " takes over, and read events that are then gone.",
            "ALTER SYSTEM SET synchronized_standby_slots to the standbys' slots, and reload.",
        )


def _identity(facts: PostgresFacts) -> Iterator[Problem]:
    for table, identity in sorted(facts.replica_identity.items()):
        if identity == "f":
            yield warning(
                f"{table} has REPLICA IDENTITY FULL: every delete writes the whole row to the write-ahead log again.",
                f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT.",
            )
    if facts.replica_identity.get(HEARTBEAT) == "n":
        yield error(
            f"{HEARTBEAT} has no replica identity, so the heartbeat's update is refused and a quiet slot stands still.",
            f"ALTER TABLE {HEARTBEAT} REPLICA IDENTITY DEFAULT.",
        )


def _triggers(facts: PostgresFacts) -> Iterator[Problem]:
    for trigger in facts.triggers:
        yield warning(f"{OUTBOX} has the trigger {trigger}, which every write pays for.", f"DROP TRIGGER {trigger}.")


def _prepared(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.oldest_prepared_seconds > OLDEST_PREPARED_SECONDS:
        yield warning(
            f"A prepared transaction is {facts.oldest_prepared_seconds:.0f} s old: slots hold the log since.",
            "see pg_prepared_xacts, and COMMIT PREPARED or ROLLBACK PREPARED.",
        )


def _heartbeat(facts: PostgresFacts) -> Iterator[Problem]:
    if facts.heartbeat_ages is None:
        yield note("The heartbeat may not be read by this role.", "log in as chat_monitor.")
        return
    for outbox in outboxes(facts):
        age = facts.heartbeat_ages.get(outbox.heartbeat_id)
        if age is None or age > OLDEST_BEAT_SECONDS:
            said = "has never beaten" if age is None else f"last beat {age:.0f} s ago"
            yield error(
                f"The connector {outbox.connector} {said}: it does not stream, whatever its status says.",
                f"chat4all-connectors status, and restart {outbox.connector}.",
            )


CHECKS: tuple[Check[PostgresFacts], ...] = (
    Check("postgres.version", _version),
    Check("postgres.wal-level", _wal_level),
    Check("postgres.synchronous-commit", _commits),
    Check("postgres.slot-keep-size", _keep),
    Check("postgres.idle-slot-timeout", _idle),
    Check("postgres.sender-timeout", _sender),
    Check("postgres.room-for-slots", _room),
    Check("postgres.role", _role),
    Check("postgres.role-excess", _excess),
    Check("postgres.publication", _publications),
    Check("postgres.publication-shares", _shares),
    Check("postgres.slot", _slots),
    Check("postgres.stray-slot", _strays),
    Check("postgres.failover", _failover),
    Check("postgres.replica-identity", _identity),
    Check("postgres.triggers", _triggers),
    Check("postgres.prepared", _prepared),
    Check("postgres.heartbeat", _heartbeat),
)
