"""`fleet-…`: many databases on many machines, by a queue in PostgreSQL."""

from __future__ import annotations

import importlib.util
import signal
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opskit import __version__
from opskit.checks import count, duration
from opskit.errors import ExtraMissing, UsageError
from opskit.tasks.command import command
from opskit.tasks.output import Say, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opskit.fleet.setup import Made, Queued
    from opskit.fleet.status import Confirmed, FleetStatus
    from opskit.operations.outcome import Outcome
    from opskit.watch.fleet import FleetState
    from opskit.watch.state import State

_SOURCES_SHOWN = 20


def require_extra() -> None:
    """Require procrastinate, which the extra `fleet` brings.

    Raises:
        ExtraMissing: it is not installed.
    """
    if importlib.util.find_spec("procrastinate") is None:
        raise ExtraMissing("procrastinate is not installed", extra="fleet")


@command(help={"take_over": "take the stores over from a fleet that is gone"})
def fleet_init(say: Say, take_over: bool = False, json: bool = False) -> Outcome[Made]:
    """Make the fleet's schema in the database of `fleet.url`, or bring it up to date.

    Example: inv fleet-init
    """
    require_extra()
    from opskit.fleet.setup import init
    from opskit.watch.runs import start

    return say.result(
        init(start(), take_over=take_over),
        lambda made: [
            f"fleet {made.fleet}: {'made' if made.is_new else 'up to date'}",
            f"stores: {', '.join(made.stores)}",
        ],
    )


@command(
    help={
        "label": "do the jobs of sources with this label; may be given several times",
        "capacity": "how many jobs to do at once",
        "until_idle": "end when no job is left",
    },
    iterable=["label"],
)
def fleet_worker(
    say: Say,
    label: list[str],
    capacity: int = 2,
    until_idle: bool = False,
) -> Outcome[Any] | None:
    """Do the jobs of a fleet until it is told to end; SIGTERM lets it finish them.

    Example: inv fleet-worker --label default --capacity 4
    """
    require_extra()
    from opskit.fleet.status import watched
    from opskit.fleet.worker import Worker, own_folder
    from opskit.operations.run import start
    from opskit.scheduler.daemon import Web

    if capacity < 1:
        raise UsageError(
            "--capacity must be at least 1", hint="Give 2: `--capacity 2`."
        )
    run = start()
    with own_folder(run), ExitStack() as stack:
        worker = Worker(
            lambda: run, labels=tuple(label) or ("default",), capacity=capacity, say=say
        )
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(each) is not signal.SIG_IGN:  # by nohup
                signal.signal(each, lambda *_: worker.stop())
        also: Callable[[], None] = lambda: None  # noqa: E731
        if worker.settings.scheduler.listen:
            web = Web(worker.run, say, watched(worker.settings))
            stack.callback(web.close)
            also = web.look
        worker.serve(until_idle=until_idle, also=also)
    return None


@command(
    help={
        "database": "this database only; may be given several times",
        "drill": "drills instead of backups",
    },
    iterable=["database"],
)
def fleet_run(
    say: Say, database: list[str], drill: bool = False, json: bool = False
) -> Outcome[Queued]:
    """Put a backup of every source that has a schedule into the queue now.

    Example: inv fleet-run --database shop
    """
    require_extra()
    from opskit.fleet.setup import run_now
    from opskit.watch.runs import start

    operation = "restore-drill" if drill else "backup"
    return say.result(
        run_now(start(), sources=database, operation=operation),
        lambda done: [
            f"{count(len(done.names), 'drill' if drill else 'backup')} put into the "
            f"queue, due at {_at(done.due)}"
        ],
    )


@command(
    help={
        "kubernetes": "the workers of each label, as YAML for kubectl",
        "image": "with --kubernetes: the container image of the workers",
        "github_matrix": "the databases, as JSON for the matrix of a workflow",
        "label": "with --github-matrix: only the databases with this label",
    }
)
def fleet_manifests(
    say: Say,
    kubernetes: bool = False,
    image: str = f"opskit:{__version__}",
    github_matrix: bool = False,
    label: str = "",
) -> None:
    """Write what runs the fleet elsewhere, from the configuration.

    Example: inv fleet-manifests --kubernetes --image registry.example/opskit:0.2.0
    """
    from opskit.fleet import manifests
    from opskit.operations.run import start

    if kubernetes == github_matrix:
        raise UsageError(
            "one kind has to be named", hint="Give --kubernetes or --github-matrix."
        )
    settings = start().settings
    if kubernetes:
        # Not by `say`, which masks the value of automountServiceAccountToken.
        print(manifests.kubernetes(settings, image=image), end="")
    else:
        say(manifests.github_matrix(settings, label=label))


@command(help={"confirm_gone": "a source that is gone: report it no more"})
def fleet_status(
    say: Say, confirm_gone: str = "", json: bool = False
) -> Outcome[FleetStatus] | Outcome[Confirmed]:
    """Show the workers, the queue, and what would be lost of each source now.

    Exit code 0 is healthy, 3 degraded, 4 unhealthy.
    Example: inv fleet-status
    """
    require_extra()
    from opskit.fleet.status import confirm, status
    from opskit.watch.runs import start

    if confirm_gone:
        return say.result(
            confirm(start(), confirm_gone),
            lambda done: [f"{done.source} is gone for good; its sets stay"],
        )
    return say.result(status(start()), _fleet_lines)


def _at(due: str) -> str:
    return f"{datetime.fromisoformat(due).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _fleet_lines(done: FleetStatus) -> Iterator[str]:
    from opskit.tasks.doctor import lines
    from opskit.watch.health import grouped

    fleet = done.state.fleet
    assert fleet is not None
    yield from _losses(done.state, fleet)
    yield ""
    yield from _workers(fleet)
    yield ""
    for check in grouped(done.checks):
        if not check.passed or check.name.startswith("fleet: "):
            yield from lines(check)


def _workers(fleet: FleetState) -> Iterator[str]:
    if fleet.error:
        yield "the queue does not answer: its workers and jobs are not known, nor is"
        yield "what was discovered; the task `status` examines all sources without it"
        return
    yield from table(
        ["worker", "state", "labels", "jobs", "seen", "version"],
        [
            [
                each.name,
                each.state,
                ", ".join(each.labels),
                f"{sum(e.worker == each.name for e in fleet.doing)} of {each.capacity}",
                f"{duration(each.seen_seconds)} ago",
                each.version,
            ]
            for each in fleet.workers
        ],
    )
    yield ""
    of_label = Counter(fleet.labels.values())
    yield from table(
        ["label", "sources", "workers", "jobs that wait"],
        [
            [label, str(of_label[label]), str(workers), str(fleet.todo.get(label, 0))]
            for label, workers in fleet.serving.items()
        ],
    )


def _losses(state: State, fleet: FleetState) -> Iterator[str]:
    from opskit.watch.state import losses

    lost = losses(state.sources, now=state.time)
    yield from table(
        ["source", "label", "would be lost", "newest set", "its proof"],
        [
            [
                each.source.name,
                fleet.labels.get(each.source.name, ""),
                "all" if each.seconds is None else duration(each.seconds),
                each.newest.backup_id if each.newest else "none",
                each.newest.proof if each.newest else "",
            ]
            for each in lost[:_SOURCES_SHOWN]
        ],
    )
    if more := lost[_SOURCES_SHOWN:]:
        yield f"{count(len(more), 'more source')}, of which less would be lost"
