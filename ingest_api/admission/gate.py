"""The gate: every command passes it, on one line of the route. Load first (synchronous), then rate limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from starlette.responses import Response

from infra.telemetry.instruments import Instruments
from ingest_api.admission.ladder import Ladder
from ingest_api.admission.model import AdmissionState, RequestClass
from ingest_api.catalogue import CATALOGUE
from ingest_api.limits.buckets import Limit, Standing
from ingest_api.limits.limiter import RateLimited, RateLimiter, Spend, raw_headers_of
from ingest_api.limits.quotas import Quota


class Quotas(NamedTuple):
    """The quotas of an API; one without hits is no limit."""

    user_sends: Quota
    user_commands: Quota
    conversation_sends: Quota
    address_logins: Quota
    address_registrations: Quota
    user_challenges: Quota
    channel_challenges: Quota
    user_lookups: Quota

    def limits(self) -> dict[str, Limit]:
        """Name -> limit, of those that there are."""
        return {
            name.replace("_", "-"): Limit(name.replace("_", "-"), quota)
            for name, quota in self._asdict().items()
            if quota.hits
        }


class Pass(NamedTuple):
    """What a request was admitted with. `unpaid` is to be counted once the request has succeeded."""

    standing: Standing | None = None
    unpaid: Sequence[Spend] = ()


class GateMetrics:
    """What the gate counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = Instruments(registry, CATALOGUE)
        self.limited_total = make.counter("ingest_api_rate_limited_total")


_FREE = Pass()


class Gate:
    """Admission and rate limits together."""

    def __init__(self, ladder: Ladder, limits: Mapping[str, Limit], limiter: RateLimiter, metrics: GateMetrics) -> None:
        self.is_closed = False
        self._ladder = ladder
        self._limiter = limiter
        self._metrics = metrics
        self._user_sends = limits.get("user-sends")
        self._user_commands = limits.get("user-commands")
        self._conversation_sends = limits.get("conversation-sends")
        self._address_logins = limits.get("address-logins")
        self._address_registrations = limits.get("address-registrations")
        self._user_challenges = limits.get("user-challenges")
        self._channel_challenges = limits.get("channel-challenges")
        self._user_lookups = limits.get("user-lookups")

    @property
    def state(self) -> AdmissionState:
        """The step of the ladder."""
        return self._ladder.state

    def close(self) -> None:
        """From now on requests are refused at the door (request_context.py): the process is about to end."""
        self.is_closed = True

    async def admit(self, request_class: RequestClass, user_id: str, sends: Mapping[str, int] | None = None) -> Pass:
        """Lets a user's command pass. `sends` says how many messages it sends to which conversation. A conversation
        is charged when `settle` is told so: else someone who is not in it could use up its quota. Raises Overloaded,
        RateLimited."""
        self._ladder.check(request_class)
        spends: list[Spend] = []
        if not sends:
            if self._user_commands is not None:
                spends.append(Spend(self._user_commands, user_id))
        else:
            if self._user_sends is not None:
                spends.append(Spend(self._user_sends, user_id, sum(sends.values())))
            if self._conversation_sends is not None:
                for conversation_id, count in sends.items():
                    spends.append(Spend(self._conversation_sends, conversation_id, count, is_checked_only=True))
        return await self._spend(spends) if spends else _FREE

    async def admit_address(self, request_class: RequestClass, address: str) -> Pass:
        """Lets someone who is not known yet log in or register. Raises Overloaded, RateLimited."""
        self._ladder.check(request_class)
        is_login = request_class is RequestClass.LOGIN
        limit = self._address_logins if is_login else self._address_registrations
        return await self._spend([Spend(limit, address)]) if limit is not None else _FREE

    async def admit_challenge(self, user_id: str, address: str) -> None:
        """Lets a user have a verification code sent to an address. Raises RateLimited."""
        asked = ((self._user_challenges, user_id), (self._channel_challenges, address))
        if spends := [Spend(limit, subject) for limit, subject in asked if limit is not None]:
            await self._spend(spends)

    async def admit_lookup(self, user_id: str, names: int) -> None:
        """Lets a user look up so many users. Raises RateLimited."""
        if self._user_lookups is not None and names:
            await self._spend([Spend(self._user_lookups, user_id, names)])

    def settle(self, passed: Pass, answer: Response) -> None:
        """The request has succeeded: counts what was to be counted then, and tells the caller how it stands."""
        if passed.unpaid:
            self._limiter.count(passed.unpaid)
        if passed.standing is not None:
            answer.raw_headers += raw_headers_of(passed.standing)

    async def _spend(self, spends: Sequence[Spend]) -> Pass:
        try:
            return Pass(await self._limiter.admit(spends), spends)
        except RateLimited as error:
            self._metrics.limited_total.labels(error.data["limit"]).inc()
            raise
