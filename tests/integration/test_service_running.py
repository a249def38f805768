"""The service in the hands of its operators: health, logs, metrics, its end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service import JWT_SECRET, Service, Services, launch_unhurried

SECONDS_MAX = 60
# Each state of the health, and after it those that are worse.
WORSE = ("healthy", "degraded", "unhealthy")


@pytest.fixture(scope="module")
def service(services: Services) -> Iterator[Service]:
    """A service that shows administrators its diagnostics."""
    with services.running(diagnostics="true") as running:
        yield running


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def parts(service: Service) -> tuple[int, dict[str, str]]:
    """Return the status code of the health, and the state of the whole and its parts."""
    answer = service.ask("GET", "/health")
    health = answer.json()
    states = {name: part["status"] for name, part in health["services"].items()}
    return answer.status, states | {"all": health["status"]}


def parts_when(service: Service, whole: str, *bad: str) -> tuple[int, dict[str, str]]:
    """Return what `parts` does, once the whole is in that state.

    A part may be slow to answer, so that it is worse before. It is never better, nor
    are the parts that are bad.
    """
    told: list[tuple[int, dict[str, str]]] = []

    def is_so() -> bool:
        told.append(parts(service))
        states = told[-1][1]
        for name in ("all", *bad):
            assert WORSE.index(states[name]) >= WORSE.index(whole), states
        return states["all"] == whole

    wait_until(is_so)
    return told[-1]


def counted(service: Service, **labels: str) -> float:
    """Return how many requests with these labels were counted."""
    text = service.ask("GET", "/metrics").data.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_requests_total"
        and labels.items() <= sample.labels.items()
    )


def test_health_names_the_version_and_every_part(services: Services) -> None:
    """All parts are healthy when nothing is missing; a setting names the version."""
    with services.running(version="7.8.9") as service:
        code, states = parts_when(service, "healthy")
        version = service.ask("GET", "/health").json()["version"]

    assert (code, version) == (200, "7.8.9")
    assert states == dict.fromkeys(
        ("all", "database", "redis", "disk", "memory"), "healthy"
    )


def test_too_little_disk_or_memory_is_a_degraded_health(services: Services) -> None:
    """Both are bounded by settings."""
    with services.running(disk_free_min=str(2**31), memory_max="1") as service:
        code, states = parts_when(service, "degraded", "memory")

    assert (code, states["memory"], states["all"]) == (200, "degraded", "degraded")


def test_without_its_database_the_service_is_unhealthy_and_recovers(
    service: Service,
) -> None:
    """Requests are refused with 503 meanwhile; nothing that was stored is lost."""
    made = service.ask("POST", "/api/tasks", "writer", document={"title": "kept"})
    with service.database_away():
        code, states = parts(service)
        ready = service.ask("GET", "/ready")
        refused = service.ask("GET", "/api/tasks", "writer")
        live = service.ask("GET", "/health/live")
    wait_until(service.is_ready)
    wait_until(lambda: service.ask("GET", "/api/tasks", "writer").status == 200)

    assert (code, states["database"], states["all"]) == (503, "unhealthy", "unhealthy")
    assert (ready.status, ready.json()) == (503, {"status": "not ready"})
    assert refused.status == 503
    assert refused.json()["error"]["code"] == "unavailable"
    assert "Retry-After" in refused.headers
    assert live.status == 200
    kept = service.ask("GET", f"/api/tasks/{made.json()['id']}", "writer")
    assert kept.json() == made.json()


def test_connections_that_the_database_ended_fail_no_request(service: Service) -> None:
    """A restarted server is noticed when a connection is taken, and replaced."""
    service.ask("GET", "/api/tasks", "writer")
    with service.connected() as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    answer = service.ask("GET", "/api/tasks", "writer")

    assert ended
    assert answer.status == 200


def test_without_redis_the_service_counts_alone_and_recovers(
    services: Services,
) -> None:
    """Requests are answered and still counted; Redis is used again when it is back."""
    with services.running(rate_limit="3/hour") as service:
        services.redis.stop()
        try:
            statuses = [
                service.ask("GET", "/api/tasks", "writer").status for _ in range(4)
            ]
            code, states = parts_when(service, "degraded", "redis")
        finally:
            services.redis.start()
        parts_when(service, "healthy")
        # Redis has counted nothing yet, so that a request is answered again.
        wait_until(lambda: service.ask("GET", "/api/tasks", "writer").status == 200)

    assert statuses == [200, 200, 200, 429]
    assert (code, states["redis"], states["all"]) == (200, "degraded", "degraded")


def test_the_service_waits_for_a_database_that_comes_later(services: Services) -> None:
    """It starts without one, is not ready, and becomes so."""
    with services.running() as service:
        service.stop()
        with service.database_away():
            service.start(until_ready=False)
            assert not service.is_ready()
        wait_until(service.is_ready)


def test_diagnostics_are_for_administrators(service: Service) -> None:
    """Others are refused, and where a setting does not enable them there are none."""
    statuses = [
        service.ask("GET", "/diagnostics", k).status for k in ("", "writer", "admin")
    ]

    assert statuses == [401, 403, 200]


def test_diagnostics_do_not_exist_unless_enabled(services: Services) -> None:
    """By default administrators find nothing there either."""
    with services.running() as service:
        assert service.ask("GET", "/diagnostics", "admin").status == 404


def test_requests_are_counted_by_the_template_of_their_route(service: Service) -> None:
    """Not by their path, of which there are endlessly many."""
    labels = {"method": "GET", "route": "/api/tasks/{task_id}", "status": "404"}
    before = counted(service, **labels)
    unknown = counted(service, route="unknown")

    for number in (999_999, 999_998):
        service.ask("GET", f"/api/tasks/{number}", "writer")
    service.ask("GET", "/some/where")
    service.ask("BREW", "/some/where/else")

    assert counted(service, **labels) == before + 2
    assert counted(service, route="unknown") == unknown + 2
    assert counted(service, method="BREW") == 0


def test_every_line_of_the_log_is_json_and_says_of_which_request(
    service: Service,
) -> None:
    """An id that a client sends leads to its line."""
    sent = {"X-Request-ID": "id-of-one-request"}
    service.ask("GET", "/api/tasks?limit=5", "writer", headers=sent)

    def lines() -> list[dict[str, object]]:
        return [
            e for e in service.logged if e.get("request_id") == sent["X-Request-ID"]
        ]

    wait_until(lambda: bool(lines()))
    (line,) = lines()
    assert (line["route"], line["status"], line["account"]) == (
        "/api/tasks",
        200,
        "writer",
    )


def test_no_secret_is_logged(services: Services) -> None:
    """Neither keys, tokens and passwords that are sent, nor those in settings."""
    with services.running(log_level="debug", diagnostics="true") as service:
        token = service.command("create-token", "writer").strip()
        wrong = "svc_00000000_" + "w" * 43
        secrets = [
            *service.keys.values(),
            token,
            wrong,
            JWT_SECRET,
            "hunter2-in-a-body",
        ]
        for each in (*service.keys.values(), wrong):
            service.ask("GET", f"/api/tasks?token={each}", headers={"X-API-Key": each})
            service.ask("GET", f"/{each}", headers={"Cookie": f"session={each}"})
        bearer = {"Authorization": f"Bearer {token}"}
        service.ask("POST", f"/api/tasks/{token}", headers=bearer)
        document = {"title": "x", "password": "hunter2-in-a-body"}
        service.ask("POST", "/api/tasks", "writer", document=document)
        service.stop()
        log = service.log.read_text()

    assert [each for each in secrets if each in log] == []
    assert "***" in log, "the keys in paths are masked, not left out"
    assert all(isinstance(json.loads(line), dict) for line in log.splitlines())


@pytest.fixture
def unhurried(services: Services) -> Iterator[Service]:
    """A service that waits for minutes: for locks, and for requests at its end."""
    with services.running(launch=launch_unhurried, stop_seconds="600") as running:
        yield running


def test_a_request_is_answered_before_the_service_ends(unhurried: Service) -> None:
    """A signal comes while it waits for a lock: it gets its answer, and then all ends."""
    service = unhurried
    made = service.ask("POST", "/api/tasks", "writer", document={"title": "slow"})
    path = f"/api/tasks/{made.json()['id']}"
    answers = []

    def change() -> None:
        answers.append(
            service.ask("PATCH", path, "writer", document={"status": "done"})
        )

    with service.connected() as connection, service.connected() as watching:
        # In a transaction the list of sessions stays as it is.
        watching.autocommit = True
        connection.execute("SELECT FROM tasks WHERE title = 'slow' FOR UPDATE")
        changing = threading.Thread(target=change)
        changing.start()
        wait_until(
            lambda: (
                watching.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                    "AND datname = current_database()"
                ).fetchone()
                == (1,)
            )
        )
        stopping = threading.Thread(target=service.stop)
        stopping.start()
        wait_until(lambda: "Shutting down" in service.log.read_text())
    changing.join(SECONDS_MAX)
    stopping.join(SECONDS_MAX)
    service.start()

    assert [each.status for each in answers] == [200]
    assert service.ask("GET", path, "writer").json()["status"] == "done"


def test_a_killed_service_comes_back_with_what_it_had_answered(
    service: Service,
) -> None:
    """What was answered is stored, and the port is free at once."""
    made = service.ask("POST", "/api/tasks", "writer", document={"title": "stored"})
    service.kill()
    service.start()

    kept = service.ask("GET", f"/api/tasks/{made.json()['id']}", "writer")
    assert kept.json() == made.json()
