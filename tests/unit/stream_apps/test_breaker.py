"""When a circuit breaker lets callers try."""

from __future__ import annotations

from stream_apps.breaker import Breaker


def test_after_a_failure_one_caller_per_interval_may_try() -> None:
    now = 100.0
    breaker = Breaker(retry_seconds=1.0, clock=lambda: now)
    assert breaker.may_try()
    assert breaker.may_try()
    breaker.failed()
    assert not breaker.may_try()
    now += 1.0
    assert [breaker.may_try() for _ in range(3)] == [True, False, False]
    now += 1.0
    assert breaker.may_try()
    breaker.succeeded()
    assert breaker.may_try()
    assert breaker.may_try()
