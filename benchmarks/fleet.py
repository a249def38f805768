"""A fleet with its real queue and real workers: overhead, throughput, the forecast.

`python -m benchmarks.fleet CAPACITY` is a worker whose jobs only wait; how long is in
`seconds.json` beside its configuration.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median

from benchmarks.contenders import Place
from benchmarks.measure import cpu_seconds_of
from benchmarks.nights import lower_bound
from benchmarks.options import Options, Part
from benchmarks.picture import curves
from benchmarks.rounds import say
from benchmarks.servers import Server
from benchmarks.tables import markdown
from benchmarks.user import ROOT, User, plain_environment
from opskit.config.fleet import FleetSettings
from opskit.fleet import plan
from opskit.fleet.plan import Work
from opskit.fleet.worker import Worker
from opskit.operations.run import start
from opskit.operations.schedule import Job
from opskit.scheduler.jobs import Ended, Running

WORKERS = (1, 2, 4, 8, 16)
CAPACITY = 4
_IDEAL = [(each, CAPACITY * each / 5) for each in WORKERS]
CAPS = FleetSettings(per_server=2, per_store=1_000)
_NOTHING, _LONG = "jobs that do nothing", "jobs of five seconds"
_LOOK_SECONDS = 0.3
_STOP_SECONDS_MAX = 60
# Due once in four years: nothing but what is asked for comes into the queue.
_SCHEDULE = "0 0 29 2 *"


class Waiting(Running):
    """A job without a process, which ends after a time."""

    def __init__(self, seconds: float, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        threading.Timer(seconds, self._end).start()

    def _end(self) -> None:
        self.ended = Ended(code=0, document={"run_id": "none"})
        self._on_end()


class WaitingWorker(Worker):
    """A real worker whose jobs only wait."""

    def launch(
        self,
        job: Job,
        due: str,
        turn: Mapping[str, object],
        on_end: Callable[[], None],
    ) -> Running:
        """Start no process."""
        seconds = json.loads(Path("seconds.json").read_text())
        return Waiting(seconds[job.source], on_end)


@dataclass(frozen=True, kw_only=True)
class Took:
    """What the jobs of a queue took, with the processors' time of workers and queue."""

    seconds: float
    cpu_seconds: float
    server_cpu_seconds: float

    def of_each(self, jobs: int) -> Took:
        """Return what each of so many jobs took of it."""
        return Took(**{name: value / jobs for name, value in vars(self).items()})


Waits = dict[str, dict[int, Took]]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A queue, and the folder with the configuration of its workers."""

    user: User
    server: Server
    queue: str
    timeout_seconds: float

    def measure(self, workers: int, command: Sequence[str]) -> Took:
        """Return what workers that wait already need for a job of each source.

        Raises:
            RuntimeError: a worker does not start, a job fails, or it takes too long.
        """
        with self._running(workers, command) as pids:
            self._await("workers WHERE engine IS NOT NULL", workers)
            before = cpu_seconds_of(pids), cpu_seconds_of([self.server.pid])
            self.call("fleet-run")
            self._await("procrastinate_jobs WHERE status IN ('todo', 'doing')", 0)
            after = cpu_seconds_of(pids), cpu_seconds_of([self.server.pid])
        self._await("procrastinate_jobs WHERE status <> 'succeeded'", 0)
        ((first, last),) = (
            each.split("|")
            for each in self._sql(
                "SELECT extract(epoch FROM min(at)), extract(epoch FROM max(at))"
                " FROM procrastinate_events; DELETE FROM procrastinate_jobs"
            ).splitlines()
        )
        return Took(
            seconds=float(last) - float(first),
            cpu_seconds=after[0] - before[0],
            server_cpu_seconds=after[1] - before[1],
        )

    def call(self, *arguments: str) -> None:
        """Run opskit and wait for its end.

        Raises:
            CalledProcessError: it fails.
        """
        subprocess.run(
            self.user.command(*arguments),
            cwd=self.user.folder,
            env=self.user.environment,
            stdout=subprocess.DEVNULL,
            timeout=self.timeout_seconds,
            check=True,
        )

    @contextlib.contextmanager
    def _running(self, workers: int, command: Sequence[str]) -> Iterator[list[int]]:
        pids = []
        with contextlib.ExitStack() as stack:
            log = stack.enter_context((self.user.folder / "workers.log").open("wb"))
            for number in range(workers):
                state = str(self.user.folder / f"state{number}")
                process = subprocess.Popen(
                    command,
                    cwd=self.user.folder,
                    env=self.user.environment | {"OPSKIT_STATE_DIR": state},
                    stdout=log,
                    stderr=log,
                )
                stack.callback(process.wait, _STOP_SECONDS_MAX)
                stack.callback(process.terminate)
                pids.append(process.pid)
            yield pids

    def _await(self, rows: str, number: int) -> None:
        until = time.monotonic() + self.timeout_seconds
        while int(self._sql(f"SELECT count(*) FROM {rows}")) != number:
            if time.monotonic() > until:
                log = (self.user.folder / "workers.log").read_text()
                raise RuntimeError(f"not {number} {rows}: {log[-2000:]}")
            time.sleep(_LOOK_SECONDS)

    def _sql(self, statement: str) -> str:
        path = "SET search_path = opskit_fleet;"
        return self.server.psql(self.queue, f"{path} {statement};").strip()


def make(options: Options, place: Place, name: str, urls: Mapping[str, str]) -> Fleet:
    """Make a queue for sources with these URLs, which run in this order."""
    folder = place.folder / name
    (folder / "store").mkdir(parents=True)
    place.source.psql("postgres", f"CREATE DATABASE {name};")
    sources = "".join(
        f"[databases.{source}]\nurl = {json.dumps(url)}\nschedule = '{_SCHEDULE}'\n"
        for source, url in urls.items()
    )
    (folder / "opskit.toml").write_text(
        f"""\
{sources}
[stores.local]
url = {json.dumps((folder / "store").as_uri())}
[fleet]
url = {json.dumps(place.source.url(name))}
per_server = {CAPS.per_server}
per_store = {CAPS.per_store}
dead_after = "30s"
[scheduler]
verify = ""
drill = ""
prune = ""
report = ""
[postgres]
bin_dirs = [{json.dumps(str(place.source.installation.bin_dir))}]
"""
    )
    environment = plain_environment(folder) | {"PYTHONPATH": str(ROOT)}
    made = Fleet(
        user=User(folder=folder, environment=environment),
        server=place.source,
        queue=name,
        timeout_seconds=options.timeout_seconds,
    )
    made.call("fleet-init")
    return made


def wait(
    options: Options,
    place: Place,
    name: str,
    todo: Sequence[Work],
    *,
    workers: int,
    capacity: int = CAPACITY,
) -> Took:
    """Have workers do jobs that only wait, and return the round with the median."""
    urls = {each.source: f"postgresql://{each.server}/none" for each in todo}
    fleet = make(options, place, name, urls)
    seconds = {each.source: each.seconds for each in todo}
    (fleet.user.folder / "seconds.json").write_text(json.dumps(seconds))
    command = [sys.executable, "-m", "benchmarks.fleet", str(capacity)]
    rounds = [fleet.measure(workers, command) for _ in range(options.rounds)]
    took = sorted(rounds, key=lambda each: each.seconds)[len(rounds) // 2]
    say(
        f"{name}: {took.seconds:.2f} s; processors: workers {took.cpu_seconds:.2f} s,"
        f" queue {took.server_cpu_seconds:.2f} s"
    )
    return took


def works(seconds: Sequence[float], *, a_server: int = 1) -> list[Work]:
    """Return jobs of these seconds, so many for each server."""
    return [
        Work(source=f"db{n}", seconds=each, server=f"server{n // a_server}")
        for n, each in enumerate(seconds)
    ]


def measure_fleet(options: Options, place: Place) -> Part:
    """Measure jobs that only wait, small backups, and a night beside its forecast."""
    waits: Waits = {_NOTHING: {}, _LONG: {}}
    for workers in WORKERS:
        for kind, seconds, jobs in ((_NOTHING, 0, 200), (_LONG, 5, 20 * workers)):
            todo = works([seconds] * jobs)
            name = f"wait_{seconds}_{workers}"
            took = wait(options, place, name, todo, workers=workers)
            waits[kind][workers] = took.of_each(jobs)
    alone = wait(options, place, "alone", works([0] * 100), workers=1, capacity=1)
    found = {
        "a job that does nothing, one at a time: ms": 10 * alone.seconds,
        **_backups(options, place),
        **_night(options, place),
    }
    return part(waits, found)


def part(waits: Waits, found: Mapping[str, float]) -> Part:
    """Return what was found for people, as a picture, and for programs."""
    head = [
        "workers", f"{_NOTHING}, a second", "processors' ms of each, worker", "queue",
        f"{_LONG}, a second", "of what it may be",
    ]  # fmt: skip
    rows = []
    for workers, ideal in _IDEAL:
        nothing, long = waits[_NOTHING][workers], waits[_LONG][workers]
        rows.append(
            [
                str(workers),
                f"{1 / nothing.seconds:.0f}",
                f"{1000 * nothing.cpu_seconds:.0f}",
                f"{1000 * nothing.server_cpu_seconds:.0f}",
                f"{1 / long.seconds:.1f}",
                f"**{1 / long.seconds / ideal:.2f}**",
            ]
        )
    text = markdown(head, rows) + "\n"
    text += markdown(["what", "found"], [[k, f"{v:.2f}"] for k, v in found.items()])
    lines = {
        kind: [(workers, 1 / took.seconds) for workers, took in each.items()]
        for kind, each in waits.items()
    }
    title = f"Jobs a second; each worker does {CAPACITY} at once; dashed: no overhead"
    return Part(
        name="fleet",
        text=f"## A fleet\n\n{text}",
        pictures={"fleet": curves(title, "workers", lines, {_LONG: _IDEAL}, unit="")},
        data={
            "of each job": {
                kind: {workers: asdict(took) for workers, took in each.items()}
                for kind, each in waits.items()
            },
            "found": found,
        },
    )


def _backups(options: Options, place: Place) -> dict[str, float]:
    """Back up small databases one after the other, then by the queue."""
    names = [f"small{number}" for number in range(20)]
    for each in names:
        place.source.psql("postgres", f"CREATE DATABASE {each};")
        place.source.psql(each, "CREATE TABLE t AS SELECT generate_series(1, 1000) n;")
    urls = {each: place.source.url(each) for each in names}
    bare, queued = (make(options, place, each, urls) for each in ("bare", "queued"))
    command = queued.user.command("fleet-worker", "--capacity", "1")
    alone, by_workers = [], {1: list[float](), 2: list[float]()}
    for _ in range(options.rounds):
        began = time.monotonic()
        for each in names:
            bare.call("backup", "--database", each)
        alone.append(time.monotonic() - began)
        for workers, found in by_workers.items():
            found.append(queued.measure(workers, command).seconds)
        say(f"{len(names)} backups: {alone[-1]:.1f} s, {by_workers}")
    seconds = median(alone)
    one, two = (median(found) / seconds for found in by_workers.values())
    return {
        "a backup of a small database without a queue: ms": 1000 * seconds / len(names),
        "the same by one worker, against that": one,
        "the same by two workers": two,
    }


def _night(options: Options, place: Place) -> dict[str, float]:
    """Have two jobs at a time on each of 12 servers, the longest first."""
    random = Random("night")
    seconds = [min(15.0, random.lognormvariate(0, 1)) for _ in range(120)]
    todo = works(sorted(seconds, reverse=True), a_server=10)
    workers = [plan.Worker(capacity=CAPACITY)] * 3
    took = wait(options, place, "night", todo, workers=len(workers)).seconds
    return {
        "120 jobs of 0.1 to 15 s by 3 workers: s": took,
        "the same, against its forecast": took
        / max(filter(None, plan.forecast(todo, workers, CAPS))),
        "the same, against a lower bound": took / lower_bound(todo, workers, CAPS),
    }


if __name__ == "__main__":
    serving = WaitingWorker(start, capacity=int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: serving.stop())
    serving.serve()
