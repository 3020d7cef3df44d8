"""Checks of Kafka: the topics that are declared against those that there are, Connect's own topics, the brokers."""

from __future__ import annotations

from collections.abc import Iterator

from connectors.doctor.facts import Facts, KafkaFacts, TopicState
from connectors.doctor.findings import Check, Problem, error, note, warning
from schemas.topics import TOPICS, Topic

ENOUGH_COPIES = 3
INTERNAL = {
    "config.storage.topic": "chat4all-connect-configs",
    "offset.storage.topic": "chat4all-connect-offsets",
    "status.storage.topic": "chat4all-connect-status",
}
"""Connect's own topics by the worker's settings that name them, as infra/connect does."""


def _topics(facts: Facts) -> Iterator[Problem]:
    if not facts.kafka:
        return
    for topic in TOPICS:
        state = facts.kafka.topics.get(topic.name)
        if state is None:
            yield error(
                f"The topic {topic.name} is missing: what goes there stops its connector or app.",
                "run python -m stream_apps.topics.",
            )
        else:
            yield from _topic(topic, state)


def _topic(topic: Topic, state: TopicState) -> Iterator[Problem]:
    if state.partitions != topic.partitions:
        yield error(
            f"{topic.name} has {state.partitions} partitions, and {topic.partitions} are declared: a conversation whose"
            " partition changed is out of order.",
            "make the topic anew with the declared number, and run chat4all-connectors recover.",
        )
    if "delete" not in state.settings.get("cleanup.policy", "delete"):
        yield error(
            f"{topic.name} is compacted: of each conversation only the last record is kept.",
            f"set cleanup.policy=delete on {topic.name}.",
        )
    kept = int(state.settings.get("retention.ms", topic.retention_ms))
    if kept != -1 and (topic.retention_ms == -1 or kept < topic.retention_ms):
        yield warning(
            f"{topic.name} keeps records for {kept} ms, and {topic.retention_ms} are declared: an app that is away"
            " longer misses some.",
            f"set retention.ms={topic.retention_ms} on {topic.name}.",
        )
    wanted = topic.config.get("message.timestamp.type")
    if wanted and state.settings.get("message.timestamp.type") != wanted:
        yield warning(
            f"{topic.name} has message.timestamp.type={state.settings.get('message.timestamp.type')}: its times are not"
            " when records reached Kafka, and latencies and recover --since are wrong.",
            f"set message.timestamp.type={wanted} on {topic.name}.",
        )


def _copies(facts: Facts) -> Iterator[Problem]:
    if not facts.kafka:
        return
    names = [topic.name for topic in TOPICS] + _internal_names(facts)
    states = {name: facts.kafka.topics[name] for name in names if name in facts.kafka.topics}
    wanted = min(ENOUGH_COPIES, facts.kafka.brokers)
    few = sorted(name for name, state in states.items() if state.copies < wanted)
    if few:
        yield warning(
            f"{', '.join(few)}: fewer than {wanted} copies, though there are {facts.kafka.brokers} brokers; a broker"
            " that is lost takes records with it.",
            "add copies with kafka-reassign-partitions.",
        )
    if facts.kafka.brokers == 1:
        yield note("There is one broker, so there is one copy of everything.", "run three brokers in production.")
    behind = sorted(name for name, state in states.items() if state.out_of_sync)
    if behind:
        yield warning(f"{', '.join(behind)}: a copy is behind.", "see whether all brokers run.")
    for name, state in sorted(states.items()):
        if state.copies > 1 and int(state.settings.get("min.insync.replicas", "1")) < 2:
            yield warning(
                f"{name} has {state.copies} copies and min.insync.replicas=1: what one broker has counts as written.",
                f"set min.insync.replicas=2 on {name}.",
            )


def _internal_names(facts: Facts) -> list[str]:
    worker = (facts.connect.worker_settings if facts.connect else None) or {}
    return [worker.get(key, name) for key, name in INTERNAL.items()]


def _internal(facts: Facts) -> Iterator[Problem]:
    if not facts.kafka or not facts.connect:
        return
    for name in _internal_names(facts):
        state = facts.kafka.topics.get(name)
        if state is None:
            yield error(
                f"Connect's topic {name} is missing: what connectors have read is not remembered.",
                "if the worker names another, give --worker-file; otherwise restart the worker, which makes it.",
            )
        elif state.settings.get("cleanup.policy") != "compact":
            yield error(
                f"Connect's topic {name} is not compacted: it forgets connectors and offsets after a while.",
                f"set cleanup.policy=compact on {name}.",
            )
    configs = facts.kafka.topics.get(_internal_names(facts)[0])
    if configs and configs.partitions != 1:
        yield error(
            f"Connect's topic of configurations has {configs.partitions} partitions: changes are read out of order.",
            "make it anew with one.",
        )


def _brokers(facts: Facts) -> Iterator[Problem]:
    if not facts.kafka:
        return
    settings = facts.kafka.broker_settings
    if settings.get("auto.create.topics.enable") == "true":
        yield warning(
            "auto.create.topics.enable is true: a slip in a topic's name makes a topic with the wrong settings.",
            "set auto.create.topics.enable=false on the brokers.",
        )
    if _is_unclean(facts.kafka):
        yield error(
            "unclean.leader.election.enable is true: a copy that is behind may take over, and records are lost.",
            "set unclean.leader.election.enable=false.",
        )


def _is_unclean(facts: KafkaFacts) -> bool:
    everywhere = [facts.broker_settings, *(state.settings for state in facts.topics.values())]
    return any(settings.get("unclean.leader.election.enable") == "true" for settings in everywhere)


CHECKS: tuple[Check[Facts], ...] = (
    Check("kafka.topics", _topics),
    Check("kafka.copies", _copies),
    Check("kafka.connect-topics", _internal),
    Check("kafka.brokers", _brokers),
)
