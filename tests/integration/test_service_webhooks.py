"""The service: webhooks that it sends, and webhooks that it gets."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import urllib3

from tests.receivers import Receiver, receiver
from tests.service import Service, Services

SECONDS_MAX = 60
SECRET = "a-secret-of-the-tests"
# More old rows than are deleted at once.
PAST = """
    INSERT INTO hooks (url, secret) VALUES ('http://gone.example/', 'a secret');
    INSERT INTO events (kind, account_id, data, request_id, created_at)
    SELECT kind, min(accounts.id), '{}', 'before', now() - make_interval(days => age)
    FROM accounts, generate_series(1, 1500) AS number,
        (VALUES ('old', 8), ('old and waiting', 8), ('new', 6)) AS past (kind, age)
    WHERE kind = 'old' OR number = 1
    GROUP BY kind, age, number;
    INSERT INTO deliveries (event_id, hook_id, due_at, ended_at)
    SELECT events.id, hooks.id, 'infinity',
        CASE kind WHEN 'old and waiting' THEN NULL ELSE events.created_at END
    FROM events, hooks;
    INSERT INTO incoming (id, signature, kind, body, request_id, received_at)
    SELECT id, id, 'ping', '', 'before', now() - make_interval(days => age)
    FROM (VALUES ('old', 8), ('new', 6)) AS past (id, age)
"""
LEFT = """
    SELECT kind FROM events
    UNION ALL SELECT 'delivery of ' || kind FROM deliveries JOIN events ON events.id = event_id
    UNION ALL SELECT 'incoming ' || id FROM incoming
"""
SENT = {"type": "task.requested", "data": {"title": "asked for by a webhook"}}


@pytest.fixture(scope="module")
def service(services: Services) -> Iterator[Service]:
    """A service that takes webhooks."""
    with services.running(webhook_secret=SECRET) as running:
        yield running


@contextmanager
def hooked(services: Services) -> Iterator[tuple[Service, Receiver]]:
    """A service with a hook, and what gets its webhooks."""
    with (
        receiver() as listener,
        services.running(hook_origins=json.dumps([listener.url])) as service,
    ):
        document = {"url": f"{listener.url}/hook", "secret": SECRET}
        answer = service.ask("POST", "/api/hooks", "admin", document=document)
        assert answer.status == 201, answer.data
        assert SECRET not in answer.data.decode()
        yield service, listener


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def make(service: Service, title: str, **headers: str) -> None:
    """Make a task."""
    sent = {"title": title}
    answer = service.ask("POST", "/api/tasks", "writer", document=sent, headers=headers)
    assert answer.status == 201, answer.data


def signature(timestamp: object, body: bytes, secret: str = SECRET) -> str:
    """Sign, the way the documents say."""
    signed = str(timestamp).encode() + b"." + body
    return "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def send(
    service: Service,
    event: object = SENT,
    *,
    age: int = 0,
    identifier: str = "",
    secret: str = SECRET,
    **headers: Any,
) -> urllib3.BaseHTTPResponse:
    """Send a signed webhook, of this age; other headers take the place of right ones."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    timestamp = str(int(time.time()) - age)
    right = {
        "X-Webhook-ID": identifier or uuid4().hex,
        "X-Webhook-Timestamp": timestamp,
        "X-Webhook-Signature": signature(timestamp, body, secret),
    }
    wrong = {f"X-Webhook-{name.title()}": value for name, value in headers.items()}
    sent = {name: value for name, value in (right | wrong).items() if value}
    return service.ask("POST", "/webhooks/incoming", body=body, headers=sent)


def unique(title: str) -> dict[str, Any]:
    """Return an event that is like no other."""
    return {"type": "task.requested", "data": {"title": f"{title} {uuid4()}"}}


def tasks(service: Service, event: Mapping[str, Any]) -> int:
    """Count the tasks that an event made."""
    with service.connected() as connection:
        cursor = connection.execute(
            "SELECT count(*) FROM tasks WHERE title = %s", [event["data"]["title"]]
        )
        return int((cursor.fetchone() or (0,))[0])


def ended(service: Service) -> list[str]:
    """Return what each delivery that is over ended with, the oldest first."""
    with service.connected() as connection:
        cursor = connection.execute(
            "SELECT error FROM deliveries WHERE ended_at IS NOT NULL ORDER BY event_id"
        )
        return [row[0] for row in cursor]


def test_a_created_task_is_delivered_signed(services: Services) -> None:
    """With the id of the request that made it; the signature is over the raw body."""
    with hooked(services) as (service, listener):
        make(service, "deliver this", **{"X-Request-ID": "cause-of-this-delivery"})
        wait_until(lambda: ended(service) == [""])
        [got] = listener.requests

    timestamp = got.headers["x-webhook-timestamp"]
    assert got.headers["x-webhook-signature"] == signature(timestamp, got.body)
    assert got.headers["x-request-id"] == "cause-of-this-delivery"
    assert abs(time.time() - int(timestamp)) < SECONDS_MAX
    assert got.headers["x-webhook-id"]
    event = json.loads(got.body)
    assert (event["type"], event["data"]["title"]) == ("task.created", "deliver this")


def test_a_delivery_that_failed_is_tried_again_as_it_was(services: Services) -> None:
    """The same body under the same id, so that a receiver takes it once."""
    with hooked(services) as (service, listener):
        listener.statuses[:] = [500, 301, 200]
        listener.location = f"{listener.url}/elsewhere"
        make(service, "try again")
        wait_until(lambda: ended(service) == [""])

    assert listener.paths() == ["/hook"] * 3
    assert len({each.headers["x-webhook-id"] for each in listener.requests}) == 1
    assert len({each.body for each in listener.requests}) == 1


def test_a_delivery_survives_a_killed_service(services: Services) -> None:
    """What was not delivered before the kill is delivered after it."""
    with hooked(services) as (service, listener):
        listener.statuses[:] = [500]
        make(service, "survives")
        wait_until(lambda: bool(listener.requests))
        service.kill()
        listener.statuses[:] = [200]
        service.start()
        wait_until(lambda: ended(service) == [""])


def test_deliveries_end_after_a_number_of_attempts(services: Services) -> None:
    """The last one says what went wrong; other deliveries go on."""
    with hooked(services) as (service, listener):
        listener.statuses[:] = [500]
        make(service, "given up")
        wait_until(lambda: bool(listener.requests))
        with service.connected() as connection:
            connection.execute("UPDATE deliveries SET attempts = 9, due_at = now()")
        wait_until(lambda: ended(service) == ["status 500"])
        listener.statuses[:] = [200]
        make(service, "the next one")
        wait_until(lambda: ended(service) == ["status 500", ""])


def test_a_hook_that_is_not_allowed_any_more_gets_nothing(services: Services) -> None:
    """Settings that changed hold for hooks that were registered before."""
    with hooked(services) as (service, listener):
        service.stop()
        service.environment = {**service.environment, "SERVICE_HOOK_ORIGINS": "[]"}
        service.start()
        make(service, "not for you")
        wait_until(lambda: "origin not allowed" in service.log.read_text())

    assert not listener.requests


def test_what_is_old_and_over_is_deleted(services: Services) -> None:
    """Not what is still to be delivered, nor what is younger than the setting says."""
    with services.running(keep_days="7") as service:
        service.stop()
        with service.connected() as connection:
            connection.execute(PAST)
        service.start()

        def left() -> set[str]:
            with service.connected() as connection:
                return {row[0] for row in connection.execute(LEFT)}

        young = {"new", "delivery of new", "incoming new"}
        wait_until(
            lambda: left() == young | {"old and waiting", "delivery of old and waiting"}
        )


def test_a_hook_leads_to_an_allowed_origin_only(services: Services) -> None:
    """Scheme, host and port must be those of a setting."""
    allowed = '["https://hooks.example.com"]'
    with services.running(hook_origins=allowed) as service:

        def status(url: str, key: str = "admin") -> int:
            document = {"url": url, "secret": SECRET}
            return service.ask("POST", "/api/hooks", key, document=document).status

        assert [url for url in FORBIDDEN if status(url) != 422] == []
        assert status("https://hooks.example.com/here?and=there") == 201
        assert status("https://HOOKS.example.com:443/") == 201
        assert status("https://hooks.example.com/", "writer") == 403


FORBIDDEN = [
    "http://169.254.169.254/latest/meta-data",
    "http://127.0.0.1:1/",
    "http://hooks.example.com/",
    "https://hooks.example.com:8443/",
    "https://hooks.example.com.evil.example/",
    "https://hooks.example.com@evil.example/",
    "https://user:password@hooks.example.com/",
    "https://evil.example#@hooks.example.com/",
    "https://evil.example\\@hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "hooks.example.com",
    "https://",
]


def test_a_webhook_has_its_effect_once(service: Service) -> None:
    """A duplicate is accepted without another effect; with another body it is refused."""
    event = unique("once")
    first = send(service, event, identifier="the-same-id")
    again = send(service, event, identifier="the-same-id", age=30)
    other = send(service, unique("other"), identifier="the-same-id")

    assert (first.status, first.json()) == (202, {"status": "accepted"})
    assert (again.status, again.json()) == (202, {"status": "duplicate"})
    assert other.status == 409
    assert tasks(service, event) == 1


def test_duplicates_at_the_same_time_have_one_effect(service: Service) -> None:
    """Whichever comes first."""
    event = unique("at once")
    with ThreadPoolExecutor(8) as pool:
        sent = [
            pool.submit(send, service, event, identifier="at-once") for _ in range(8)
        ]
        answers = [each.result().json()["status"] for each in sent]

    assert sorted(answers) == ["accepted"] + ["duplicate"] * 7
    assert tasks(service, event) == 1


def test_duplicates_across_a_restart_have_one_effect(services: Services) -> None:
    """The memory is in the database, not in the process; a kill does not empty it."""
    event = unique("across a restart")
    with services.running(webhook_secret=SECRET) as service:
        answers = [send(service, event, identifier="before").json()["status"]]
        service.kill()
        service.start()
        answers += [send(service, event, identifier="before").json()["status"]]

        assert answers == ["accepted", "duplicate"]
        assert tasks(service, event) == 1


def test_an_effect_that_fails_leaves_no_trace_of_the_webhook(
    services: Services,
) -> None:
    """So that the sender's next attempt is not taken for a duplicate."""
    event = unique("second attempt")
    with services.running(webhook_secret=SECRET) as service:
        with service.connected() as connection:
            connection.execute(
                "ALTER TABLE tasks ADD CONSTRAINT no CHECK (false) NOT VALID"
            )
        failed = send(service, event, identifier="again")
        with service.connected() as connection:
            connection.execute("ALTER TABLE tasks DROP CONSTRAINT no")
        then = send(service, event, identifier="again")

    assert failed.status == 500
    assert (then.status, then.json()) == (202, {"status": "accepted"})


@pytest.mark.parametrize(
    "headers",
    [
        {"signature": ""},
        {"signature": "v1="},
        {"signature": "v1=" + "0" * 64},
        {"secret": "another"},
        {"signature": "gr\xfc\xdfe"},
        {"timestamp": ""},
        {"timestamp": "now"},
        {"timestamp": "9" * 400},
        {"timestamp": "1"},
    ],
    ids=str,
)
def test_a_webhook_that_is_not_signed_is_refused(
    service: Service, headers: dict[str, Any]
) -> None:
    """All in the same words."""
    answer = send(service, **headers)

    assert answer.status == 401
    assert answer.json()["error"]["message"] == "the signature is not valid"


@pytest.mark.parametrize("age", [301, 100_000, -330])
def test_a_webhook_of_another_time_is_refused(service: Service, age: int) -> None:
    """Though its signature is right."""
    assert send(service, unique("stale"), age=age).status == 401


def test_a_webhook_with_another_body_is_refused(service: Service) -> None:
    """The signature is over each byte of it."""
    now = int(time.time())
    signed = json.dumps(SENT).encode()

    assert send(service, signed + b" ", signature=signature(now, signed)).status == 401


def test_a_signature_is_not_taken_under_another_id(service: Service) -> None:
    """The id is not signed: who heard a webhook must not get its effect again."""
    event = unique("replayed")
    now = str(int(time.time()))
    statuses = [
        send(
            service,
            event,
            identifier=identifier,
            timestamp=now,
            signature=signature(now, json.dumps(event).encode()),
        ).status
        for identifier in ("heard", "replayed")
    ]

    assert statuses == [202, 409]
    assert tasks(service, event) == 1


def test_webhooks_of_unknown_types_are_a_matter_of_a_setting(
    services: Services, service: Service
) -> None:
    """Strict refuses them, lenient stores them; known types are checked by both."""
    unknown = {"type": "order.paid", "data": {"text": "a\0b"}, "sent_by": "a shop"}
    wrong = {"type": "task.requested", "data": {"title": 5}}
    with services.running(webhook_secret=SECRET, strict_events="false") as lenient:
        statuses = [send(each, unknown).status for each in (service, lenient)]
        wrongs = [send(each, wrong).status for each in (service, lenient)]
        with lenient.connected() as connection:
            kinds = connection.execute("SELECT kind FROM incoming").fetchall()

    assert statuses == [422, 202]
    assert wrongs == [422, 422]
    assert kinds == [("order.paid",)]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 422), (b'{"type": "a\\u0000b"}', 422)],
)
def test_a_signed_webhook_may_still_be_malformed(
    service: Service, body: bytes, status: int
) -> None:
    """It is refused in the form of every error."""
    assert send(service, body).status == status


def test_without_a_secret_there_are_no_incoming_webhooks(services: Services) -> None:
    """As if the route did not exist."""
    with services.running() as service:
        assert send(service).status == 404
