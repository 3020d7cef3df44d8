"""Buckets: the arithmetic of one rate limit in this process, without I/O. A hit fills the bucket of its subject (a
user, a conversation, an address) a little, time empties it, and what does not fit is refused.

This is the generic cell rate algorithm (ITU-T I.371): a bucket is one number, the time at which it will be empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from ingest_api.limits.quotas import Quota

UNSHARED_SHARE = 8
"""This process may admit one eighth of a quota for a subject before the other processes know of it."""


class Standing(NamedTuple):
    """How a subject stands after a request, as RateLimit headers tell it. `wait_seconds` is 0 when it was admitted."""

    limit: Limit
    remaining: int
    reset_seconds: int
    wait_seconds: float


@dataclass(slots=True)
class Bucket:
    """`empty_at` in seconds of the clock. `unshared` hits are not yet in the bucket that the processes share;
    `telling` are on their way to it."""

    empty_at: float = 0.0
    unshared: int = 0
    telling: int = 0


@dataclass(slots=True, eq=False)
class Limit:
    """One rule and the buckets of everyone whom it holds for."""

    name: str
    quota: Quota
    buckets: dict[str, Bucket] = field(default_factory=dict)
    seconds_per_hit: float = field(init=False)
    max_unshared: int = field(init=False)
    half_seconds: float = field(init=False)
    policy_headers: tuple[tuple[bytes, bytes], tuple[bytes, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds_per_hit = self.quota.seconds / self.quota.hits
        self.max_unshared = max(1, self.quota.hits // UNSHARED_SHARE)
        self.half_seconds = self.quota.seconds / 2
        policy = b"%d;w=%d" % (self.quota.hits, self.quota.seconds)
        self.policy_headers = ((b"ratelimit-policy", policy), (b"ratelimit-limit", b"%d" % self.quota.hits))

    def is_doubtful(self, subject: str, hits: int, now: float) -> bool:
        """Whether what other processes admitted might matter: the bucket is half full, or this process would admit
        more than its share without telling."""
        bucket = self.buckets.get(subject)
        if bucket is None:
            return hits > self.max_unshared
        return (
            bucket.unshared + bucket.telling + hits > self.max_unshared
            or bucket.empty_at - now + hits * self.seconds_per_hit > self.half_seconds
        )

    def stand(self, subject: str, hits: int, now: float) -> Standing:
        """How the subject would stand after so many hits more; nothing is counted."""
        bucket = self.buckets.get(subject)
        level = max(0.0, bucket.empty_at - now) if bucket is not None else 0.0
        after = level + hits * self.seconds_per_hit
        excess = after - self.quota.seconds
        if excess > 1e-6:
            after = level
        free = max(0, int((self.quota.seconds - after) / self.seconds_per_hit + 1e-6))
        return Standing(self, free, math.ceil(after), excess if excess > 1e-6 else 0.0)

    def count(self, subject: str, hits: int, now: float) -> None:
        """Counts hits that were admitted."""
        bucket = self.buckets.get(subject)
        if bucket is None:
            bucket = self.buckets[subject] = Bucket()
        start = bucket.empty_at
        bucket.empty_at = (start if start > now else now) + hits * self.seconds_per_hit
        bucket.unshared += hits

    def tell(self, subject: str) -> float:
        """Takes what is unshared on its way: seconds of draining for the shared bucket."""
        bucket = self.buckets.get(subject)
        if bucket is None:
            return 0.0
        bucket.telling, bucket.unshared = bucket.unshared, 0
        return bucket.telling * self.seconds_per_hit

    def learn(self, subject: str, level: float | None, now: float) -> None:
        """The shared bucket takes `level` seconds to empty, what it was told included. None: it was not told (or
        nobody knows whether it was; then those hits count twice)."""
        bucket = self.buckets.setdefault(subject, Bucket())
        if level is None:
            bucket.unshared += bucket.telling
        else:
            # Redis may have forgotten what we remember, so the fuller of the two counts.
            bucket.empty_at = max(bucket.empty_at, now + level + bucket.unshared * self.seconds_per_hit)
        bucket.telling = 0

    def forget_empty(self, now: float) -> None:
        """Drops the buckets that have run empty: they limit nobody."""
        empty = [subject for subject, bucket in self.buckets.items() if bucket.empty_at <= now]
        for subject in empty:
            del self.buckets[subject]
