"""`fleet-…`: many databases on many machines, by a queue in PostgreSQL."""

from __future__ import annotations

import importlib.util
import signal
from typing import TYPE_CHECKING, Any

from opskit import __version__
from opskit.checks import count
from opskit.errors import ExtraMissing, UsageError
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from opskit.fleet.setup import Made, Queued
    from opskit.operations.outcome import Outcome


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
    from opskit.fleet.worker import Worker
    from opskit.operations.run import start

    if capacity < 1:
        raise UsageError(
            "--capacity must be at least 1", hint="Give 2: `--capacity 2`."
        )
    worker = Worker(
        start, labels=tuple(label) or ("default",), capacity=capacity, say=say
    )
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    signal.signal(signal.SIGINT, lambda *_: worker.stop())
    worker.serve(until_idle=until_idle)
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
    """Put a backup of every source into the queue now.

    Example: inv fleet-run --database shop
    """
    require_extra()
    from opskit.fleet.setup import run_now
    from opskit.watch.runs import start

    operation = "restore-drill" if drill else "backup"
    return say.result(
        run_now(start(), sources=database, operation=operation),
        lambda done: [f"{count(len(done.names), operation)} due at {done.due}"],
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
