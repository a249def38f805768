"""`init`: write what a repository needs to run opskit, by flags or answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opskit.errors import UsageError
from opskit.log import mask
from opskit.tasks.command import command
from opskit.tasks.output import Say, hint, shown
from opskit.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.operations.init import Initialised
    from opskit.operations.outcome import Outcome


@command(
    help={
        "database": "a database to back up, as NAME=URL (may be given several times)",
        "files": "a folder to back up, as NAME=PATH (may be given several times)",
        "store": "where the sets go: a folder, or s3://BUCKET/PREFIX",
        "endpoint": "the address of an S3-compatible server; left out for AWS",
        "deployer": "how versions are deployed: local, railway, command or none; "
        "by default none",
        "run": "what runs it: scheduler, github or both; by default both, or "
        "scheduler without a database",
        "diff": "show what differs from the files that lie there, and write nothing",
        "force": "overwrite files that differ",
        "yes": "ask nothing: take the defaults, make a missing folder of the store",
    },
    iterable=["database", "files"],
)
def init(
    say: Say,
    database: list[str] | None = None,
    files: list[str] | None = None,
    store: str = "",
    endpoint: str = "",
    deployer: str = "",
    run: str = "",
    diff: bool = False,
    force: bool = False,
    yes: bool = False,
    json: bool = False,
) -> Outcome[Initialised]:
    """Write a configuration, tasks.py, workflows and runbooks into this folder.

    On a terminal it asks for what the flags leave out. It overwrites no file that
    differs, but with --force.
    Example: inv init --database shop=postgresql://ops@db/shop --store /var/backups/shop
    """
    from opskit import config
    from opskit.operations import init as operation
    from opskit.operations import repository

    folder = Path.cwd()
    if config.configuration_path() != folder / repository.CONFIGURATION:
        raise UsageError(
            "init writes opskit.toml here, and --config or OPSKIT_CONFIG names another",
            hint="Leave that out.",
        )
    asks = not (yes or json) and sys.stdin.isatty() and sys.stderr.isatty()
    given = {
        "databases": database or [],
        "folders": files or [],
        "store": store,
        "endpoint": endpoint,
        "deployer": deployer,
        "run": run,
    }
    answers = repository.read_answers(folder, **(_asked(given) if asks else given))
    planned = operation.plan(answers, folder, force=force)
    if diff:
        for line in planned.diff or ["nothing differs from what init writes"]:
            # Only what goes away may hold secrets; the rest must stay as it is.
            if not json:
                print(printable(mask(line) if line.startswith("-") else line))
        return operation.outcome(planned)
    if planned.new_store and not yes:
        _require_consent(planned.new_store, asks=asks)
    return say.result(operation.init(planned), _lines)


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """Return what is given, with a person's answers for what is not."""
    from opskit.operations import repository as r

    asked = dict(given)
    if not given["databases"] and not given["folders"]:
        asked["databases"] = _ask_all(
            "A database to back up, such as shop=postgresql://ops@db.example/shop",
            r.named_database,
        )
        asked["folders"] = _ask_all(
            "A folder to back up, such as state=/var/lib/app", r.named
        )
    if not given["store"]:
        asked["store"] = _ask(
            "Where the sets go: a folder, or a bucket such as s3://acme-backups/prod"
        )
        if asked["store"].startswith("s3:") and not given["endpoint"]:
            asked["endpoint"] = _ask("The address of the S3 server; empty: AWS", "")
    run = "both" if asked["databases"] else "scheduler"
    for key, question, default, words in (
        ("deployer", "How versions are deployed", "none", r.DEPLOYERS),
        ("run", "What runs opskit", run, r.RUNNERS),
    ):
        check = r.one_of(key, words)
        if not given[key]:
            asked[key] = _ask(f"{question}: {', '.join(words)}", default, check)
    return asked


def _ask_all(question: str, check: Callable[[str], object]) -> list[str]:
    """Ask until the answer is empty; return the others."""
    answers: list[str] = []
    while answer := _ask(f"{question}; empty: no more", "", check):
        answers.append(answer)
    return answers


def _ask(
    question: str,
    default: str | None = None,
    check: Callable[[str], object] = lambda _answer: None,
) -> str:
    """Ask until the check accepts the answer, or there is a default for none."""
    while True:
        shown_default = f" [{default}]" if default else ""
        print(f"{question}{shown_default}: ", end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            raise UsageError("there was no answer", hint="Nothing was written.")
        answer = line.strip()
        if not answer and default is not None:
            return default
        try:
            check(answer)
        except UsageError as error:
            print(f"{shown(error.message)}. {shown(hint(error.hint))}", file=sys.stderr)
        else:
            if answer:
                return answer


def _require_consent(store: Path, *, asks: bool) -> None:
    """Refuse to make the folder of the store unless a person agrees."""
    question = f"{store} does not exist. Make it? y/n"
    if asks and _ask(question, "y").lower() in ("y", "yes"):
        return
    raise UsageError(
        f"the folder of the store does not exist: {store}",
        hint="Make it, or give --yes to have it made. Nothing was written.",
    )


def _lines(done: Initialised) -> Iterator[str]:
    if done.new_store:
        yield f"made         {done.new_store}"
    for each in done.files:
        yield f"{each.state:<11}  {each.path}"
    if not any(each.is_written for each in done.files):
        yield "nothing was changed"
    if any(each.state == "kept" for each in done.files):
        yield "What is kept differs: --diff shows how, --force overwrites it."
    yield "Next:"
    for step in done.steps():
        yield f"- {hint(step)}"
