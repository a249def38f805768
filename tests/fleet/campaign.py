"""Campaign: a fleet at work for a set time, what happens to it, and what came of it."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit.store import Store, open_store
from tests import s3_servers
from tests.fleet.account import Account, read, settle
from tests.fleet.faults import KINDS, Planned, World
from tests.fleet.network import Network, network
from tests.fleet.servers import TINY, Server, server
from tests.fleet.workers import Worker
from tests.proxy import proxy_to
from tests.support import value
from tests.watching import until

_LOOK_SECONDS = 0.25
_ACCOUNT_SECONDS = 3.0
_DRAIN_SECONDS = 150.0
_LABELS = ("default", "far")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a fleet is, and within how many minutes its databases are due.

    In no time they are due half a year from now. The first `placed` workers have a
    network of their own.
    """

    databases: int
    workers: int
    placed: int
    minutes: float
    majors: Sequence[int] = (15, 16, 18)
    groups: int = 10
    capacity: int = 2
    dead_after: int = 30
    patience: int = 45


@dataclass(frozen=True, kw_only=True)
class Group:
    """Databases of one server with one line, listed or found by a pattern.

    `minutes` are those of every hour at which they are due; without any, they are due
    once a year.
    """

    name: str
    on: Server
    databases: tuple[str, ...]
    minutes: tuple[int, ...]
    label: str
    is_found: bool

    @property
    def line(self) -> str:
        """The cron line."""
        return _hourly(self.minutes)

    @property
    def section(self) -> str:
        """What the configuration says of it."""
        common = f'schedule = "{self.line}"\nlabel = "{self.label}"\nmax_age = "2h"\n'
        if self.is_found:
            pattern = json.dumps([f"{self.name}_*"])
            url = json.dumps(self.on.url())
            return f"[discover.{self.name}]\nurl = {url}\npattern = {pattern}\n{common}"
        return "".join(
            f"[databases.{each}]\nurl = {json.dumps(self.on.url(each))}\n{common}"
            for each in self.databases
        )

    def due(self, since: datetime, until: datetime) -> list[datetime]:
        """Return what the timetable asks for of who is new at a time: also the last."""
        if not self.minutes:
            return []
        hour = (since - timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
        times = []
        while hour <= until:
            times += [hour + timedelta(minutes=each) for each in sorted(self.minutes)]
            hour += timedelta(hours=1)
        past = [each for each in times if each <= since]
        return past[-1:] + [each for each in times if since < each <= until]


@dataclass(kw_only=True)
class Campaign:
    """A fleet that runs."""

    folder: Path
    size: Size
    network: Network
    world: World
    groups: Sequence[Group]
    bucket: s3_servers.S3Server
    store: Store
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    seen: Counter[str] = field(default_factory=Counter)
    asked: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))

    def log(self, what: str, **facts: object) -> None:
        """Write a line into the log of what happened."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "what": what}
        with (self.folder / "campaign.log").open("a") as file:
            file.write(json.dumps(line | facts) + "\n")

    def begin(self) -> None:
        """Make the fleet, and start all workers."""
        self.make()
        for each in self.world.workers:
            each.start()

    def make(self) -> None:
        """Make the fleet."""
        done = self.world.workers[0].command("fleet-init", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        self.began = datetime.now(UTC)

    def strike(self, planned: Sequence[Planned], seconds: float) -> None:
        """Have the planned faults happen, and heal all of them in the end."""
        for each in planned:
            self.log("planned", fault=each.kind, target=each.target, at=each.at)
        start, waiting, active = time.monotonic(), [*planned], list[Planned]()
        while waiting or active or time.monotonic() - start < seconds:
            now = time.monotonic() - start
            for each in [e for e in waiting if e.at <= now]:
                waiting.remove(each)
                self._happen("begin", each, KINDS[each.kind].begin)
                active.append(each)
            for each in [e for e in active if e.until <= now]:
                if KINDS[each.kind].may_end(self.world, each.target):
                    active.remove(each)
                    self._happen("end", each, KINDS[each.kind].end)
            self.supervise(except_for={each.target for each in active})
            time.sleep(_LOOK_SECONDS)

    def _happen(
        self, what: str, each: Planned, do: Callable[[World, str], None]
    ) -> None:
        self.log(what, fault=each.kind, target=each.target)
        do(self.world, each.target)
        self.seen[each.kind] += what == "begin"

    def supervise(self, except_for: set[str] | frozenset[str] = frozenset()) -> None:
        """Start workers again that ended, as a service manager does."""
        for each in self.world.workers:
            if each.name not in except_for and each.may_start:
                code = each.process and each.process.returncode
                self.log("ended", worker=each.name, code=code, start=each.number)
                self.seen["ended by itself"] += 1
                each.start()

    def account(self, *, whole: bool, drilled: bool = True) -> Account:
        """Return what is in the store against what is due by now."""
        now = datetime.now(UTC)
        asked = {
            each: group.due(self.began, now) + self.asked[each]
            for group in self.groups
            for each in group.databases
        }
        return settle(asked, read(self.store, whole=whole), drilled=drilled)

    def ask(self, *sources: str, drill: bool = False) -> datetime:
        """Put a run of each source into the queue, and return when it is due."""
        flags = [part for each in sources for part in ("--database", each)]
        flags += ["--drill"] * drill
        done = self.world.workers[0].command("fleet-run", *flags, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        due = datetime.fromisoformat(json.loads(done.stdout)["due"])
        for each in () if drill else sources:
            self.asked[each].append(due)
        return due

    def settled(self, seconds_max: float, *, drilled: bool = True) -> Account:
        """Wait until nothing is missing, then read everything; or until it is late."""
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            self.supervise()
            account = self.account(whole=False, drilled=drilled)
            if not account.faults:
                break
            time.sleep(_ACCOUNT_SECONDS)
        self.log("settled", faults=account.faults)
        return account

    def end(self) -> list[str]:
        """Drain all workers; return what is wrong with how they ended."""
        # One that has just been started knows nothing of draining yet.
        until(lambda: not any(each.is_new for each in self.world.workers))
        for each in self.world.workers:
            each.drain()
        deadline, faults = time.monotonic() + _DRAIN_SECONDS, []
        for each in self.world.workers:
            while each.runs and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
            if each.runs or each.processes():
                faults.append(f"{each.name} did not end")
                each.lose()
            elif each.process is None or each.process.returncode:
                faults.append(f"{each.name} ended with {each.process}")
        return faults

    def figures(self) -> dict[str, Any]:
        """Return what the queue knows of the work that was done."""
        statement = """
            SELECT json_build_object(
                'jobs', count(*),
                'attempts', sum(attempts),
                'more than once', count(*) FILTER (WHERE attempts > 1),
                'failed', count(*) FILTER (WHERE status = 'failed'),
                'left', count(*) FILTER (WHERE status IN ('todo', 'doing'))
            ) FROM opskit_fleet.procrastinate_jobs"""
        found = value(self.world.queue.url("fleet"), statement)
        shown = self.world.workers[0].command("fleet-status")
        (self.folder / "fleet-status").write_text(shown.stdout + shown.stderr)
        return {**found, **self.seen, "fleet-status": shown.returncode}


@contextmanager
def campaign(size: Size, folder: Path | None = None) -> Iterator[Campaign]:
    """Yield a fleet on servers of its own, which has not begun to work."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, given in s3_servers.environment().items():
            patch.setenv(name, given)
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        net = stack.enter_context(network(size.placed))
        s3 = folder / "s3"
        s3.mkdir(parents=True)
        bucket = stack.enter_context(
            s3_servers.with_buckets("seaweedfs", s3, host=net.address)
        )
        proxy = stack.enter_context(proxy_to(bucket.endpoint_url, net.address))
        queue = stack.enter_context(server("queue", 18, net.queue))
        queue.create(["fleet"])
        groups = _groups(size, net, stack)
        workers = []
        for number in range(size.workers):
            place = net.places[number] if number < size.placed else None
            worker = Worker(
                name=f"worker-{number + 1}",
                folder=folder / f"worker-{number + 1}",
                stack=stack,
                place=place,
                arguments=_arguments(number, size),
            )
            worker.folder.mkdir()
            # Every other worker has the store behind a proxy, which may be slow.
            through = replace(bucket, endpoint_url=proxy.endpoint_url)
            seen = through if number % 2 else bucket
            text = _configuration(size, seen, queue, groups)
            (worker.folder / "opskit.toml").write_text(text)
            stack.callback(worker.lose)
            workers.append(worker)
        yield Campaign(
            folder=folder,
            size=size,
            network=net,
            world=World(workers=workers, queue=queue, proxy=proxy),
            groups=groups,
            bucket=bucket,
            store=open_store("bucket", bucket.settings(s3_servers.BUCKET, "fleet")),
        )


def _groups(size: Size, net: Network, stack: ExitStack) -> list[Group]:
    """Start the servers, create the databases, and spread their due times."""
    servers = [
        stack.enter_context(server(f"server{major}", major, net.address))
        for major in size.majors
    ]
    now = datetime.now(UTC)
    groups = []
    for number in range(size.groups):
        count = len(range(number, size.databases, size.groups))
        name = f"group{number}"
        # Late enough for what each database is due for in the beginning to be done.
        first = size.minutes * (0.65 + 0.25 * number / size.groups)
        due = now + timedelta(minutes=first)
        group = Group(
            name=name,
            on=servers[number % len(servers)],
            databases=tuple(f"{name}_{each}" for each in range(count)),
            minutes=(due.minute,) if size.minutes else (),
            label=_LABELS[number % 5 == 4],
            is_found=number % 2 == 1,
        )
        group.on.create(group.databases, TINY)
        groups.append(group)
    return groups


def _arguments(number: int, size: Size) -> list[str]:
    labels = _LABELS if number % 2 == 0 else _LABELS[:1]
    given = [part for each in labels for part in ("--label", each)]
    return [*given, "--capacity", str(size.capacity)]


def _configuration(
    size: Size, bucket: s3_servers.S3Server, queue: Server, groups: Sequence[Group]
) -> str:
    return f"""\
[fleet]
url = {json.dumps(queue.url("fleet"))}
dead_after = "{size.dead_after}s"
patience = "{size.patience}s"
per_server = 4

[stores.bucket]
url = "s3://{s3_servers.BUCKET}/fleet"
endpoint_url = {json.dumps(bucket.endpoint_url)}
region = "us-east-1"
addressing = "path"

[scheduler]
listen = ""
drill = "{_drilled(size)}"
verify = ""
prune = ""
report = ""

{"".join(each.section for each in groups)}"""


def _drilled(size: Size) -> str:
    """Return a line by which every source is drilled within the time."""
    if not size.minutes:
        return _hourly(())
    every = min(
        each for each in range(1, 61) if 60 % each == 0 and each >= size.minutes
    )
    return _hourly(range(datetime.now(UTC).minute % every, 60, every))


def _hourly(minutes: Iterable[int]) -> str:
    """Return a line for minutes of every hour; without any, a day half a year away."""
    if not (listed := ",".join(map(str, sorted(minutes)))):
        return f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *"
    return f"{listed} * * * *"


def names(faults: Mapping[str, object]) -> str:
    """Return figures as one line."""
    return ", ".join(f"{name}: {each}" for name, each in sorted(faults.items()))


def interrupt_once() -> None:
    """Let an interrupt end what was begun in its order."""
    # A shell may have had it ignored, and what is started here with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
