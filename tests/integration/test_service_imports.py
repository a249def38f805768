"""The service: imports of files, by its command and by its workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import processes, support
from tests.service import Service, Services

SECONDS_MAX = 60


@pytest.fixture
def service(services: Services) -> Iterator[Service]:
    """A service with no tasks."""
    with services.running() as running:
        yield running


def record(number: int, **other: object) -> dict[str, Any]:
    """Return the record of a task; those with odd numbers have all fields."""
    made: dict[str, Any] = {"key": f"t-{number}", "title": f"task {number}"}
    if number % 2:
        made |= {"details": "Ünïcode,\nand\ttwo lines", "status": "done"}
        made |= {"due_at": "2026-11-30T12:00:00.123456+02:00"}
    return made | other


def store(*records: dict[str, Any]) -> bytes:
    """Return a file with these records."""
    return json.dumps({"version": 1, "tasks": records}).encode()


def owned(number: int, owner: str = "writer") -> list[dict[str, Any]]:
    """Return so many records, which name their owner."""
    return [record(each, owner=owner) for each in range(number)]


def start(service: Service, file: Path) -> subprocess.Popen[str]:
    """Start the command that imports a file."""
    return subprocess.Popen(
        [sys.executable, "-m", "service", "import-json", str(file)],
        env=dict(service.environment),
        cwd=service.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(service: Service, content: bytes) -> tuple[int, str]:
    """Import a file, and return the exit code and what was printed."""
    file = service.folder / "store.json"
    file.write_bytes(content)
    code, output, errors = processes.run(
        service.folder, ["import-json", str(file)], service.environment
    )
    return code, (errors if code else output).strip()


def imported(service: Service) -> list[tuple[Any, ...]]:
    """Return all tasks: their owners, titles, details, states and times."""
    with service.connected() as connection:
        return connection.execute(
            "SELECT name, title, details, status, due_at::text FROM tasks "
            "JOIN accounts ON accounts.id = owner_id ORDER BY tasks.id"
        ).fetchall()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def half_way(service: Service) -> Iterator[Callable[[], bool]]:
    """Hold imports up after they made tasks; yields whether one is held up now."""
    with service.connected() as holding, service.connected() as watching:
        watching.autocommit = True
        holding.execute("LOCK TABLE imported IN SHARE MODE")

        def is_held() -> bool:
            row = watching.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND datname = current_database() AND query LIKE 'INSERT INTO imported%'"
            ).fetchone()
            return row is not None and row[0] > 0

        yield is_held


def test_a_file_is_imported_with_all_that_it_holds(service: Service) -> None:
    """Each record is a task of its owner; count and digest are printed."""
    content = store(record(1, owner="writer"), record(2, owner="other"))
    code, printed = run(service, content)

    assert code == 0, printed
    assert imported(service) == [
        (
            "writer",
            "task 1",
            "Ünïcode,\nand\ttwo lines",
            "done",
            "2026-11-30 10:00:00.123456+00",
        ),
        ("other", "task 2", "", "open", None),
    ]
    result = json.loads(printed)
    assert (result["records"], result["added"]) == (2, 2)
    assert len(result["digest"]) == 64
    audit = service.ask("GET", "/api/audit?action=tasks.imported", "admin").json()
    assert [each["actor"] for each in audit["items"]] == ["writer", "other"]


def test_a_second_import_adds_what_is_new(service: Service) -> None:
    """The same again adds nothing, even where the task was changed since then."""
    _, first = run(service, store(*owned(3)))
    [task] = service.ask("GET", "/api/tasks?limit=1", "writer").json()["items"]
    service.ask(
        "PATCH", f"/api/tasks/{task['id']}", "writer", document={"title": "mine"}
    )
    _, again = run(service, store(*reversed(owned(3))))
    code, more = run(service, store(*owned(5)))

    assert code == 0
    assert json.loads(again) == json.loads(first) | {"added": 0}
    assert json.loads(more)["added"] == 2
    assert [each[1] for each in imported(service)] == [
        "mine",
        *(f"task {number}" for number in range(1, 5)),
    ]


BAD = [
    ([*owned(2), record(2, owner="writer", title="")], "tasks.3.title"),
    ([*owned(2), record(2, owner="writer", title="nul \0")], "tasks.3.title"),
    ([*owned(2), record(2, owner="writer", due_at="soon")], "tasks.3.due_at"),
    ([*owned(2), record(2, owner="writer", priority=1)], "tasks.3.priority"),
    ([*owned(2), record(2, owner="nobody")], "an owner that is not known"),
    ([*owned(2), record(2)], "no owner"),
    ([*owned(2), record(1, owner="writer")], "the same key"),
    ([*owned(1), record(1, owner="writer", title="new")], "1 records differ"),
]


def test_one_bad_record_refuses_the_file(service: Service) -> None:
    """What it was is said; what was imported before stays, nothing is added."""
    run(service, store(*owned(2)))
    before = imported(service)
    for records, told in BAD:
        code, printed = run(service, store(record(9, owner="writer"), *records))

        assert code == 1, told
        assert printed.startswith("nothing was imported: ")
        assert told in printed
        assert imported(service) == before


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"version": 2, "tasks": []}', b"\xff"]
)
def test_a_file_of_another_form_is_refused(service: Service, content: bytes) -> None:
    """Without a traceback."""
    code, printed = run(service, content)

    assert code == 1
    assert printed.startswith("nothing was imported: ")
    assert len(printed.splitlines()) == 1


def test_a_database_that_changes_what_it_stores_is_noticed(service: Service) -> None:
    """What came out different is not kept."""
    with service.connected() as connection:
        connection.execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN NEW.details := left(NEW.details, 3); RETURN NEW; END$$"
        )
        connection.execute(
            "CREATE TRIGGER cut BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION cut()"
        )
    code, printed = run(service, store(*owned(4)))

    assert (code, imported(service)) == (1, [])
    assert printed == "nothing was imported: 2 of 4 records came out different"


def test_an_import_that_was_killed_left_nothing(service: Service) -> None:
    """And can be repeated."""
    file = service.folder / "store.json"
    file.write_bytes(store(*owned(50)))
    with half_way(service) as is_held:
        process = start(service, file)
        wait_until(is_held)
        process.kill()
        process.communicate(timeout=SECONDS_MAX)
        wait_until(lambda: not is_held())
    left = imported(service)
    code, _ = run(service, file.read_bytes())

    assert (left, code) == ([], 0)
    assert len(imported(service)) == 50


def test_a_file_that_changed_while_it_was_imported_is_refused(service: Service) -> None:
    """The program that writes it must be stopped first."""
    file = service.folder / "store.json"
    file.write_bytes(store(*owned(2)))
    with half_way(service) as is_held:
        process = start(service, file)
        wait_until(is_held)
        file.write_bytes(store(*owned(3)))
    _, printed = process.communicate(timeout=SECONDS_MAX)

    assert "the file changed while it was imported" in printed
    assert imported(service) == []


def upload(service: Service, content: bytes, key: str = "writer") -> str:
    """Send a file, and return the id of its import."""
    answer = service.ask("POST", "/api/imports", key, body=content)
    assert answer.status == 202, answer.data
    return str(answer.json()["id"])


def settled(service: Service, identifier: str) -> dict[str, Any]:
    """Wait until an import is over, and return how it ended."""

    def read() -> dict[str, Any]:
        answer = service.ask("GET", f"/api/imports/{identifier}", "writer")
        document: dict[str, Any] = answer.json()
        return document

    wait_until(lambda: read()["status"] != "waiting")
    return read()


def test_a_large_payload_goes_to_a_process_as_its_standard_input(
    service: Service,
) -> None:
    """It is never an argument, nor in the environment; it ends with the service."""
    secret = "only-in-the-payload"
    records = [record(each, details=secret * 100) for each in range(1000)]
    with half_way(service) as is_held:
        identifier = upload(service, store(*records))
        wait_until(is_held)
        [worker] = support.processes_of(identifier)
        process = Path(f"/proc/{worker}")
        payload = os.readlink(process / "fd/0")
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        service.stop()
        left = support.processes_of(identifier)
    service.start()

    assert payload.endswith(f"state/imports/{identifier}")
    assert secret.encode() not in shown
    assert left == []
    assert settled(service, identifier)["added"] == 1000
    assert len(imported(service)) == 1000


def test_an_upload_survives_a_killed_service_and_is_imported_once(
    service: Service,
) -> None:
    """Its worker may live on: only one of the two has an effect."""
    with half_way(service) as is_held:
        identifier = upload(service, store(*map(record, range(20))))
        wait_until(is_held)
        service.kill()
        service.start()

    assert settled(service, identifier)["status"] == "done"
    wait_until(lambda: support.processes_of(identifier) == [])
    assert len(imported(service)) == 20


def test_an_upload_that_is_refused_says_why_to_its_owner(service: Service) -> None:
    """Others do not see it; readers cannot import; no one imports for another."""
    broken = upload(service, store(record(1), record(2, title="")))
    foreign = upload(service, store(record(1, owner="other")))
    other = service.ask("GET", f"/api/imports/{broken}", "other")
    reader = service.ask("POST", "/api/imports", "reader", body=store())

    assert "tasks.1.title" in settled(service, broken)["error"]
    assert "an owner" in settled(service, foreign)["error"]
    assert (other.status, reader.status) == (404, 403)
    assert imported(service) == []


def test_a_worker_that_takes_too_long_is_ended(services: Services) -> None:
    """Its import has failed, and is not tried again."""
    with services.running(import_seconds="1") as service, half_way(service):
        late = upload(service, store(record(1)))

        assert settled(service, late)["error"] == "the worker failed"
        wait_until(lambda: support.processes_of(late) == [])


def test_workers_count_together(service: Service) -> None:
    """In a file that several of them change; administrators see it."""
    for number in range(6):
        upload(service, store(record(number)))
    file = service.folder / "state" / "imports.json"
    wait_until(lambda: file.exists() and json.loads(file.read_bytes())["done"] == 6)

    assert json.loads(file.read_bytes()) == {"done": 6, "tasks": 6}


def test_an_upload_may_be_large_but_not_without_end(services: Services) -> None:
    """Larger than other bodies, up to a limit; nothing of a refused one stays."""
    with services.running(import_bytes_max="200000") as service:
        large = upload(service, store(record(0)) + b" " * 150_000)
        refused = service.ask(
            "POST", "/api/imports", "writer", body=store() + b" " * 250_000
        )

        assert settled(service, large)["status"] == "done"
        assert refused.status == 413
        folder = service.folder / "state" / "imports"
        wait_until(lambda: list(folder.iterdir()) == [])
