"""The client waits for what passes, until its deadline, and names what does not."""

from __future__ import annotations

import httpx
import pytest

from connectors.connect import (
    ConnectClient,
    ConnectError,
    ConnectUnreachable,
    Deadline,
    RebalanceInProgress,
    RefusedLogin,
    RejectedConfig,
    UnexpectedAnswer,
    UnknownConnector,
)
from tests.fakes_connect import REBALANCING, STARTING, FakeConnect, FakeTime

REFUSED = httpx.ConnectError("[Errno 111] Connection refused")
CUT_OFF = httpx.RemoteProtocolError("Server disconnected without sending a response.")
NO_LEADER = httpx.Response(
    500, json={"error_code": 500, "message": "IO Error trying to forward REST request: Connection refused"}
)
ABOUT_TO_REBALANCE = httpx.Response(
    500, json={"error_code": 500, "message": "Request cannot be completed because a rebalance is expected"}
)
NOT_READY = httpx.Response(503, json={"error_code": 503, "message": "the worker is starting"})


def client(connect: FakeConnect, seconds: float = 10) -> tuple[ConnectClient, FakeTime]:
    fake_time = FakeTime()
    deadline = Deadline(seconds, clock=fake_time.clock, sleep=fake_time.sleep)
    return ConnectClient([connect.client()], deadline), fake_time


@pytest.mark.parametrize("passing", [REFUSED, CUT_OFF, REBALANCING, STARTING, NOT_READY, NO_LEADER, ABOUT_TO_REBALANCE])
def test_what_passes_is_waited_for(passing: httpx.Response | Exception) -> None:
    connect = FakeConnect(plugins={}, interruptions=[passing, passing, passing])
    under_test, fake_time = client(connect)
    assert under_test.names() == []
    assert (len(connect.calls), fake_time.now) == (4, 1.5)


@pytest.mark.parametrize(
    ("passing", "error"),
    [
        (REFUSED, ConnectUnreachable),
        (CUT_OFF, ConnectUnreachable),
        (STARTING, ConnectUnreachable),
        (NOT_READY, ConnectUnreachable),
        (REBALANCING, RebalanceInProgress),
        (NO_LEADER, RebalanceInProgress),
    ],
)
def test_what_does_not_pass_before_the_deadline_is_an_error(
    passing: httpx.Response | Exception, error: type[ConnectError]
) -> None:
    connect = FakeConnect(plugins={}, interruptions=[passing] * 100)
    under_test, fake_time = client(connect, seconds=5)
    with pytest.raises(error):
        under_test.names()
    assert fake_time.now <= 5


def test_a_page_of_html_is_not_taken_for_the_absence_of_a_connector() -> None:
    connect = FakeConnect(plugins={"k": ()}, interruptions=[])
    connect.client().put("/connectors/c/config", json={"connector.class": "k"})
    connect.interruptions = [STARTING]
    assert client(connect)[0].find_config("c") == {"connector.class": "k", "name": "c"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(200, json={"not": "a list"}), UnexpectedAnswer),
        (httpx.Response(200, text="hello"), UnexpectedAnswer),
        (httpx.Response(418, text="teapot"), UnexpectedAnswer),
        (httpx.Response(500, json={"error_code": 500, "message": "Request timed out"}), UnexpectedAnswer),
        (httpx.Response(302, headers={"location": "/elsewhere"}), UnexpectedAnswer),
        (httpx.Response(400, json={"error_code": 400, "message": "no"}), RejectedConfig),
    ],
)
def test_what_does_not_pass_is_told_at_once(answer: httpx.Response, error: type[ConnectError]) -> None:
    connect = FakeConnect(plugins={}, interruptions=[answer])
    under_test, fake_time = client(connect)
    with pytest.raises(error):
        under_test.names()
    assert (len(connect.calls), fake_time.now) == (1, 0)


@pytest.mark.parametrize("name", ["a b", "ü/x", "x?y#z", "%2e"])
def test_a_name_is_one_segment_of_the_path_whatever_is_in_it(name: str) -> None:
    connect = FakeConnect(plugins={"k": ()})
    under_test, _ = client(connect)
    under_test.put_config(name, {"connector.class": "k"})
    assert under_test.get_status(name).name == name


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_lead_to_another_address_is_no_connectors(name: str) -> None:
    connect = FakeConnect(plugins={})
    with pytest.raises(UnknownConnector):
        client(connect)[0].delete(name)
    assert connect.calls == []


def test_when_a_worker_does_not_answer_the_next_is_asked_at_once() -> None:
    connect = FakeConnect(plugins={})
    away = httpx.Client(base_url="http://away.test", transport=httpx.MockTransport(_refuse))
    fake_time = FakeTime()
    deadline = Deadline(10, clock=fake_time.clock, sleep=fake_time.sleep)
    under_test = ConnectClient([away, connect.client()], deadline)
    assert under_test.names() == []
    assert under_test.names() == []
    assert (len(connect.calls), fake_time.now) == (2, 0)


def test_when_no_worker_answers_all_are_asked_until_the_deadline() -> None:
    asked: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        raise httpx.ConnectError("refused")

    workers = [httpx.Client(base_url=f"http://{n}.test", transport=httpx.MockTransport(refuse)) for n in ("a", "b")]
    fake_time = FakeTime()
    with pytest.raises(ConnectUnreachable):
        ConnectClient(workers, Deadline(2, clock=fake_time.clock, sleep=fake_time.sleep)).names()
    assert asked == ["a.test", "b.test"] * 5


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_says_what_to_set(status: int) -> None:
    connect = FakeConnect(plugins={}, interruptions=[httpx.Response(status, text="no")])
    with pytest.raises(RefusedLogin, match="CHAT4ALL_CONNECT_USER"):
        client(connect)[0].names()


def _refuse(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")
