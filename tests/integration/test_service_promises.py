"""What the service promises when processes are killed and Redis goes away."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import urllib3

from tests.service import FOLDER, Service, Services

SECONDS_MAX = 300
WRITERS = 20
UPDATES = 15
# Says which of its updates are done, each as soon as it is.
_WRITER = """
import sys
from pathlib import Path
from service import statefile
from service.statefile import StateFile

statefile._WAIT_SECONDS = 600.0
state, name = StateFile(Path(sys.argv[1])), sys.argv[2]
for number in range(1, int(sys.argv[3]) + 1):
    state.update(lambda content: content.update({name: content.get(name, 0) + 1}))
    print(number, flush=True)
"""
# Starts a program again whenever it has ended, as systemd does with Restart=always and
# RestartSec=100ms.
_SUPERVISOR = 'while :; do "$@" & echo $!; wait $!; sleep 0.1; done'


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Writer:
    """A process that changes a state file again and again."""

    def __init__(self, file: Path, number: int, updates: int) -> None:
        self.name = f"writer-{number}"
        self.said = file.with_name(self.name)
        with self.said.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(file), self.name, str(updates)],
                cwd=FOLDER,
                stdout=output,
            )

    @property
    def acknowledged(self) -> int:
        """How many of its updates are done, as far as it said."""
        return len(self.said.read_text().splitlines())

    def kill_after(self, number: int, seconds: float) -> None:
        """End it at once, some time after so many updates are done."""
        wait_until(lambda: self.acknowledged >= number)
        time.sleep(seconds)
        self.process.kill()


@contextmanager
def reading(file: Path) -> Iterator[list[int]]:
    """Read a state file all the time; yields the sum of what is in it, each time."""
    sums: list[int] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(0.001):
            if file.exists():
                sums.append(sum(json.loads(file.read_bytes()).values()))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield sums
    finally:
        ended.set()
        thread.join()


def test_killed_writers_of_a_state_file_lose_no_update(tmp_path: Path) -> None:
    """It is whole and valid at any time; what was acknowledged is in it."""
    file = tmp_path / "state.json"
    chance = random.Random(1)
    with reading(file) as sums:
        victims = [Writer(file, number, 10**9) for number in range(WRITERS // 2)]
        others = [
            Writer(file, number, UPDATES) for number in range(WRITERS // 2, WRITERS)
        ]
        for victim in victims:
            reached = chance.randrange(1, UPDATES)
            victim.kill_after(reached, chance.uniform(0, 0.01))
        for each in victims + others:
            each.process.wait(SECONDS_MAX)
    state = json.loads(file.read_bytes())

    done = {each.name: each.acknowledged for each in victims}
    assert all(0 <= state[name] - number <= 1 for name, number in done.items()), done
    assert [state[each.name] for each in others] == [UPDATES] * len(others)
    assert sums
    assert sums == sorted(sums)


def test_requests_go_on_while_redis_is_stopped_and_started(services: Services) -> None:
    """Degraded meanwhile, healthy afterwards; not one request is lost."""
    with services.running(rate_limit="100000/minute") as service, ExitStack() as stack:
        statuses: list[int] = []
        ended = threading.Event()

        def ask() -> None:
            while not ended.is_set():
                document = {"title": "goes on"}
                answer = service.ask("POST", "/api/tasks", "writer", document=document)
                statuses.append(answer.status)

        thread = threading.Thread(target=ask)
        thread.start()
        stack.callback(thread.join)
        stack.callback(ended.set)
        for _ in range(2):
            services.redis.stop()
            try:
                wait_until(lambda: health(service) == "degraded")
                answered(statuses, 5)
            finally:
                services.redis.start()
            wait_until(lambda: health(service) == "healthy")
        ended.set()
        thread.join()
        total = service.ask("GET", "/api/tasks", "writer").json()["total"]

    assert set(statuses) == {201}
    assert total == len(statuses)


def answered(statuses: list[int], number: int) -> None:
    """Wait until so many more requests were answered."""
    enough = len(statuses) + number
    wait_until(lambda: len(statuses) >= enough)


def health(service: Service) -> str:
    """Return what the service says of itself."""
    return str(service.ask("GET", "/health").json()["status"])


def test_a_killed_process_is_back_soon(
    services: Services, record_property: Callable[[str, object], None]
) -> None:
    """Ready again after a kill, with all that it had acknowledged."""
    with services.running() as service:
        made = service.ask("POST", "/api/tasks", "writer", document={"title": "kept"})
        service.stop()
        with supervised(service) as pids:
            wait_until(service.is_ready)
            seconds = [killed(service, pids) for _ in range(3)]
            kept = service.ask("GET", f"/api/tasks/{made.json()['id']}", "writer")
    record_property("seconds_until_ready", seconds)
    print(f"ready again after {seconds} seconds")

    assert kept.json() == made.json()


def killed(service: Service, pids: Callable[[], list[str]]) -> float:
    """Kill a process, and return after how many seconds the next one is ready."""
    before = pids()
    began = time.monotonic()
    subprocess.run(["kill", "-KILL", before[-1]], check=True)
    wait_until(lambda: pids() != before and service.is_ready())
    return round(time.monotonic() - began, 2)


@contextmanager
def supervised(service: Service) -> Iterator[Callable[[], list[str]]]:
    """Keep a service running; yields what returns the ids of its processes so far."""
    ids = service.folder / "ids"
    command = [sys.executable, "-m", "service", "serve", "--port", str(service.port)]
    with ids.open("wb") as output:
        supervisor = subprocess.Popen(
            ["sh", "-c", _SUPERVISOR, "supervisor", *command],
            env=dict(service.environment),
            cwd=service.folder,
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield lambda: ids.read_text().split()
    finally:
        supervisor.kill()
        supervisor.wait()
        subprocess.run(["kill", "-KILL", ids.read_text().split()[-1]], check=False)
        wait_until(lambda: not answers(service))


def answers(service: Service) -> bool:
    """Say whether anything answers at the service's address."""
    try:
        urllib3.request("GET", service.url, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    return True
