"""Deliveries: to receivers that are away, hang, answer 500 or point elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import ReadTimeoutError

from opskit.watch import deliveries
from opskit.watch.deliveries import (
    Delivery,
    NotDelivered,
    deliver,
    reason_of,
    request,
)
from tests.receivers import away, receiver

WAIT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_PAUSES_SECONDS", (0.0, 0.0))


def _delivery(send: Callable[[], object], seconds: float = WAIT_SECONDS) -> Delivery:
    return Delivery(receiver="one", send=send, seconds=seconds)


def _reason(url: str, timeout: float = WAIT_SECONDS) -> str:
    with pytest.raises(NotDelivered) as raised:
        request("GET", url, timeout=timeout)
    return str(raised.value)


def test_a_receiver_that_is_away_is_named_by_what_is_wrong() -> None:
    """Its address is not in the words."""
    assert _reason(f"{away()}/secret") == "it cannot be reached: Connection refused"


def test_a_receiver_that_does_not_answer_is_not_waited_for() -> None:
    """The limit holds for one that is silent."""
    with receiver([0]) as silent:
        assert _reason(silent.url, timeout=1) == "no answer within 1 s"


def test_a_redirect_is_not_followed() -> None:
    """A message goes to configured addresses alone."""
    with receiver() as other, receiver([307], other.url) as pointing:
        reason = _reason(pointing.url)

    assert reason == "it answered 307, and redirects are not followed"
    assert other.requests == []


def test_a_user_and_a_password_in_an_address_are_sent_as_such() -> None:
    """As HTTP basic authentication, decoded."""
    with receiver() as one:
        request("GET", one.url.replace("//", "//ops:p%40ss@") + "/x", timeout=60)

    (got,) = one.requests
    assert got.headers["authorization"] == "Basic b3BzOnBAc3M="  # ops:p@ss
    assert got.path == "/x"


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts without a way of their own to the network have one."""
    with receiver() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        request("GET", "http://hc.example/ping", timeout=60)

    assert [each.path for each in proxy.requests] == ["http://hc.example/ping"]


@pytest.mark.parametrize(
    ("statuses", "attempts", "reason"),
    [
        ([200], 1, ""),
        ([500, 200], 2, ""),
        ([429, 503, 204], 3, ""),
        ([500], 3, "it answered 500"),
        ([404], 1, "it answered 404"),
    ],
)
def test_what_may_pass_is_tried_again_and_no_more_than_twice(
    statuses: list[int], attempts: int, reason: str
) -> None:
    """A refusal is final."""
    with receiver(statuses) as one:
        send = lambda: request("GET", one.url, timeout=60)  # noqa: E731
        assert deliver([replace(_delivery(send), repeated=True)]) == [reason]

    assert len(one.requests) == attempts


def test_an_answer_that_never_ends_is_not_waited_for() -> None:
    """A byte now and then starts every other limit anew."""
    with receiver([-1]) as slow:
        send = lambda: request("GET", slow.url, timeout=60)  # noqa: E731
        began = time.monotonic()
        assert deliver([_delivery(send, 1.0)]) == ["no answer within 1 s"]

    assert time.monotonic() - began < WAIT_SECONDS / 2


def test_one_receiver_does_not_keep_another_waiting() -> None:
    """All get their message at once."""
    with receiver([0]) as silent, receiver() as good:
        reasons = deliver(
            [
                _delivery(lambda: request("GET", silent.url, timeout=1), 60.0),
                _delivery(lambda: request("GET", good.url, timeout=60)),
            ]
        )

    assert reasons == ["no answer within 1 s", ""]


def test_an_error_of_a_library_is_named_without_its_words() -> None:
    """They may hold the address."""

    def send() -> None:
        raise KeyError("https://ops:secret@example.org")

    assert deliver([_delivery(send)]) == ["an unexpected error: KeyError"]


def test_a_library_that_ran_out_of_time_is_told_in_our_words() -> None:
    """No error of the system is behind it if no time was left to read the answer."""
    late = ReadTimeoutError(HTTPConnectionPool("example.org"), "/secret", "timed out")

    assert reason_of(late, 5.0) == "no answer within 5 s"
