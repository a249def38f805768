"""The service: who may do what, and the form of every answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from tests.service import JWT_SECRET, Service, Services

CLAIMS = {"aud": "service", "iss": "service", "sub": "writer"}
ORIGIN = "https://app.example"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
}


@pytest.fixture(scope="module")
def service(services: Services) -> Any:
    """A service behind HTTPS that one origin may call."""
    with services.running(https="true", allowed_origins=f'["{ORIGIN}"]') as running:
        yield running


def made(service: Service, title: str = "water the plants", key: str = "writer") -> int:
    """Make a task and return its id."""
    answer = service.ask("POST", "/api/tasks", key, document={"title": title})
    assert answer.status == 201, answer.data
    number: int = answer.json()["id"]
    return number


def is_error(answer: Any, code: str) -> bool:
    """Say whether an answer has the form of every error, and the header's id."""
    error = answer.json()["error"]
    return error.keys() == {"code", "message", "request_id"} and (
        (error["code"], error["request_id"]) == (code, answer.headers["X-Request-ID"])
    )


def test_a_task_is_read_and_changed_by_its_owner(service: Service) -> None:
    """What was made is what is read; what a change leaves out stays."""
    path = f"/api/tasks/{made(service)}"

    changed = service.ask("PATCH", path, "writer", document={"status": "done"}).json()

    assert (changed["title"], changed["status"]) == ("water the plants", "done")
    assert service.ask("GET", path, "writer").json() == changed


def test_another_owner_neither_sees_nor_changes_a_task(service: Service) -> None:
    """It is as if it did not exist, in lists too."""
    number = made(service)
    path = f"/api/tasks/{number}"

    seen = service.ask("GET", path, "other")
    changed = service.ask("PATCH", path, "other", document={"title": "mine"})
    listed = service.ask("GET", "/api/tasks?limit=100", "other").json()["items"]

    assert (seen.status, changed.status) == (404, 404)
    assert number not in [each["id"] for each in listed]
    assert service.ask("GET", path, "writer").json()["title"] == "water the plants"


@pytest.mark.parametrize(
    ("key", "method", "path"),
    [
        ("reader", "POST", "/api/tasks"),
        ("reader", "PATCH", "/api/tasks/1"),
        ("reader", "GET", "/api/audit"),
        ("writer", "GET", "/api/audit"),
    ],
)
def test_a_role_that_does_not_suffice_is_refused(
    service: Service, key: str, method: str, path: str
) -> None:
    """Readers do not write, and only administrators read the audit trail."""
    answer = service.ask(method, path, key, document={"title": "x"})

    assert answer.status == 403
    assert is_error(answer, "forbidden")


def test_pages_follow_each_other_without_gaps(service: Service) -> None:
    """Every task is in one page, in the order of ids; the page's size has a cap."""
    numbers = [made(service, f"page {number}", "other") for number in range(7)]
    found, path = [], "/api/tasks?limit=3"
    while path:
        page = service.ask("GET", path, "other").json()
        found += [each["id"] for each in page["items"]]
        path = page["next"] and f"/api/tasks?limit=3&after={page['next']}"

    assert (found, page["total"]) == (numbers, 7)
    assert service.ask("GET", "/api/tasks", "other").json()["limit"] == 20
    assert service.ask("GET", "/api/tasks?limit=1000", "other").json()["limit"] == 100


def test_the_audit_trail_says_who_did_what_in_which_request(service: Service) -> None:
    """A task that was made is there, under the id that the client chose."""
    document = {"title": "audited"}
    sent = {"X-Request-ID": "request-of-this-test"}
    task = service.ask("POST", "/api/tasks", "writer", headers=sent, document=document)
    path = "/api/audit?actor=writer&action=task.created&limit=100"
    entries = service.ask("GET", path, "admin").json()["items"]

    (entry,) = [e for e in entries if e["request_id"] == "request-of-this-test"]
    assert entry["subject"] == f"task:{task.json()['id']}"
    nobody = service.ask("GET", "/api/audit?actor=nobody", "admin").json()
    assert (nobody["items"], nobody["total"]) == ([], 0)


def test_without_a_valid_key_nothing_below_api_answers(service: Service) -> None:
    """No key, a wrong one, one with a known beginning: all are 401."""
    key = service.keys["writer"]
    for wrong in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": key[:-1] + "!"}):
        answer = service.ask("GET", "/api/tasks", headers=wrong)
        assert answer.status == 401
        assert is_error(answer, "unauthenticated")
    almost = key[:-4] + ("AAAA" if key[-4:] != "AAAA" else "BBBB")
    answer = service.ask("GET", "/api/tasks", headers={"X-API-Key": almost})
    assert answer.status == 401


def test_a_key_that_was_revoked_is_refused(services: Services) -> None:
    """It is believed no longer than the cache lasts."""
    with services.running(key_cache_seconds="0.001") as service:
        assert service.ask("GET", "/api/tasks", "writer").status == 200
        with service.connected() as connection:
            connection.execute("UPDATE api_keys SET revoked_at = now()")
        assert service.ask("GET", "/api/tasks", "writer").status == 401


def test_a_token_of_the_service_is_accepted(service: Service) -> None:
    """It acts for the account that it names, with that account's role."""
    token = service.command("create-token", "reader").strip()
    bearer = {"Authorization": f"Bearer {token}"}

    assert service.ask("GET", "/api/tasks", headers=bearer).status == 200
    refused = service.ask("POST", "/api/tasks", headers=bearer, document={"title": "x"})
    assert refused.status == 403


@pytest.mark.parametrize(
    ("changes", "secret", "algorithm"),
    [
        pytest.param({"exp": 1}, JWT_SECRET, "HS256", id="expired"),
        pytest.param({"aud": "another"}, JWT_SECRET, "HS256", id="audience"),
        pytest.param({"iss": "another"}, JWT_SECRET, "HS256", id="issuer"),
        pytest.param({"sub": "nobody"}, JWT_SECRET, "HS256", id="subject"),
        pytest.param({}, "another secret of thirty-two bytes", "HS256", id="signature"),
        pytest.param({}, JWT_SECRET * 2, "HS512", id="algorithm"),
        pytest.param({}, None, "none", id="unsigned"),
    ],
)
def test_a_token_with_one_fault_is_refused(
    service: Service, changes: dict[str, object], secret: str | None, algorithm: str
) -> None:
    """Whatever is wrong with it, it names nobody."""
    claims = {**CLAIMS, "exp": time.time() + 600, **changes}
    token = jwt.encode(claims, secret, algorithm=algorithm)  # type: ignore[arg-type]
    bearer = {"Authorization": f"Bearer {token}"}

    assert service.ask("GET", "/api/tasks", headers=bearer).status == 401


def test_a_token_that_never_expires_is_refused(service: Service) -> None:
    """Every token must say until when it holds."""
    token = jwt.encode(CLAIMS, JWT_SECRET)
    bearer = {"Authorization": f"Bearer {token}"}

    assert service.ask("GET", "/api/tasks", headers=bearer).status == 401


@pytest.mark.parametrize(
    ("ask", "status", "code"),
    [
        pytest.param(lambda s: s.ask("GET", "/api/tasks"), 401, "unauthenticated"),
        pytest.param(lambda s: s.ask("GET", "/nothing"), 404, "not_found"),
        pytest.param(lambda s: s.ask("PUT", "/health"), 405, "method_not_allowed"),
        pytest.param(
            lambda s: s.ask("POST", "/api/tasks", "writer", body=b" " * 70_000),
            413,
            "body_too_large",
        ),
        pytest.param(
            lambda s: s.ask("POST", "/api/tasks", "writer", document={"more": 1}),
            422,
            "invalid",
        ),
        pytest.param(
            lambda s: s.ask(
                "OPTIONS",
                "/api/tasks",
                headers={
                    "Origin": "https://evil.example",
                    "Access-Control-Request-Method": "GET",
                },
            ),
            403,
            "forbidden",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_error_has_one_form_and_the_safe_headers(
    service: Service, ask: Callable[[Service], Any], status: int, code: str
) -> None:
    """Code, message and id in the body; the policy's headers beside it."""
    answer = ask(service)

    assert answer.status == status
    assert is_error(answer, code)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "Server" not in answer.headers


def test_an_unforeseen_error_tells_clients_nothing(services: Services) -> None:
    """A table is missing: 500 in the form of every error, the reason in the log."""
    with services.running() as service:
        with service.connected() as connection:
            connection.execute("ALTER TABLE tasks RENAME TO gone")
        answer = service.ask("GET", "/api/tasks", "writer")
        service.stop()
        lines = [each for each in service.logged if each["level"] == "error"]

    assert answer.status == 500
    assert is_error(answer, "internal")
    assert b"tasks" not in answer.data
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert [each["request_id"] for each in lines] == [answer.headers["X-Request-ID"]]
    assert "UndefinedTable" in str(lines[0]["exception"])


def test_what_is_not_http_is_refused_in_the_same_form(service: Service) -> None:
    """Even the server's own refusal has the headers."""
    head, _, body = service.raw(b"nonsense\r\n\r\n").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff" in head
    assert b'"code":"malformed"' in body


def test_a_request_id_is_returned_if_it_is_one(service: Service) -> None:
    """One that could forge lines or headers is replaced."""
    own, forged = "client-id.0001", 'x" onload="alert(1)'

    for sent, is_kept in ((own, True), (forged, False), ("x" * 65, False)):
        answer = service.ask("GET", "/health", headers={"X-Request-ID": sent})
        assert (answer.headers["X-Request-ID"] == sent) is is_kept


def test_only_the_listed_origin_may_read_answers(service: Service) -> None:
    """It is echoed, on errors too; one that looks like it gets nothing."""
    for origin, allowed in ((ORIGIN, ORIGIN), (ORIGIN + ".evil.example", None)):
        for path in ("/health", "/api/tasks"):
            answer = service.ask("GET", path, headers={"Origin": origin})
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 50_000, 400),
        (b'{"a":' * 30 + b"1" + b"}" * 30, 400),
        (b'{"title":"\xff"}', 400),
        (b'{"title":"\\ud800"}', 400),
        (b'{"title":NaN}', 400),
        (b'{"title":' + b"9" * 5000 + b"}", 400),
        (b'{"title":"a","title":"b"}', 400),
        (b'{"title":"a\\u0000"}', 422),
        (b'{"title":1}', 422),
        (b'{"title":"a","owner_id":1}', 422),
        (b'{"title":""}', 422),
        (b'{"title":"a","due_at":1}', 422),
        (b'{"title":"a","due_at":"9999-12-31T23:59:59-12:00"}', 422),
        (b"null", 422),
    ],
)
def test_a_bad_body_is_refused_cleanly(
    service: Service, body: bytes, status: int
) -> None:
    """Whatever it is, it is the client's fault, and is told in the usual form."""
    answer = service.ask("POST", "/api/tasks", "writer", body=body)

    assert answer.status == status, answer.data
    assert is_error(answer, "malformed" if status == 400 else "invalid")


@pytest.mark.parametrize(
    "path",
    [
        "/api/tasks/0",
        "/api/tasks/99999999999999999999",
        "/api/tasks/%00",
        "/api/tasks?limit=0",
        "/api/tasks?after=-1",
        "/api/tasks?nonsense=1",
        "/api/tasks?status=%00",
        "/api/audit?actor=%00",
        "/api/audit?since=1",
        "/api/audit?since=0001-01-01T00:00:00%2B14:00",
    ],
)
def test_a_bad_address_is_refused_cleanly(service: Service, path: str) -> None:
    """Numbers are bounded, words are known, parameters too."""
    answer = service.ask("GET", path, "admin")

    assert answer.status == 422, answer.data
    assert is_error(answer, "invalid")


def test_the_routes_are_described(service: Service) -> None:
    """The description can be made, and names the keys and the form of errors."""
    description = service.ask("GET", "/openapi.json").json()

    assert set(description["components"]["securitySchemes"]) == {
        "APIKeyHeader",
        "HTTPBearer",
    }
    answers = description["paths"]["/api/tasks"]["get"]["responses"]
    assert set(answers) == {"200", "default"}


def test_a_change_cannot_empty_what_must_be_there(service: Service) -> None:
    """`null` is not the same as leaving a field out."""
    path = f"/api/tasks/{made(service)}"

    answer = service.ask("PATCH", path, "writer", document={"title": None})

    assert answer.status == 422
