"""`init`: write what a repository needs to run opskit, of flags or answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opskit.errors import UsageError
from opskit.tasks.command import command
from opskit.tasks.output import Say, hint, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.operations.init import Initialised
    from opskit.operations.outcome import Outcome
    from opskit.operations.repository import Answers

_EXAMPLE = (
    "`inv init --database shop=postgresql://ops@db.example/shop "
    "--store s3://acme-backups/prod`"
)


@command(
    help={
        "database": "a database to back up, as NAME=URL (may be given several times)",
        "files": "a folder to back up, as NAME=PATH (may be given several times)",
        "store": "where the sets go: a folder, or s3://BUCKET/PREFIX",
        "endpoint": "the address of an S3-compatible server; left out for AWS",
        "deployer": "how versions are deployed: local, railway, command or none; "
        "by default none",
        "run": "what runs it: scheduler, github or both; by default both",
        "diff": "show what differs from the files that lie there, and write nothing",
        "force": "overwrite files that differ",
        "yes": "ask nothing: make a missing folder of the store",
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
    from opskit.operations import init as operation

    asks = not (yes or json) and sys.stdin.isatty() and sys.stderr.isatty()
    given = _Given(
        database=database or [],
        files=files or [],
        store=store,
        endpoint=endpoint,
        deployer=deployer,
        run=run,
    )
    if asks:
        given.ask()
    given.require()
    request = operation.InitRequest(
        answers=given.answers(Path.cwd()), force=force, diff=diff
    )
    planned = operation.plan(request, Path.cwd())
    if planned.makes_store and not (diff or yes):
        _require_store(planned, asks=asks)
    return say.result(operation.init(planned, Path.cwd()), _lines)


@dataclass(kw_only=True)
class _Given:
    """What the flags say, and a person answers for those that are left out."""

    database: list[str]
    files: list[str]
    store: str
    endpoint: str
    deployer: str
    run: str

    def ask(self) -> None:
        """Ask for what is left out."""
        from opskit.operations import repository

        if not self.database and not self.files:
            self.database = _ask_all(
                "A database to back up, as NAME=postgresql://USER@HOST/DATABASE",
                lambda text: repository.named_database(text),
            )
            self.files = _ask_all(
                "A folder of files to back up, as NAME=/PATH",
                lambda text: repository.named_folder(text),
            )
        if not self.store:
            self.store = _ask("Where the sets go: a folder, or s3://BUCKET/PREFIX")
            if self.store.startswith("s3:") and not self.endpoint:
                self.endpoint = _ask("The address of the S3 server, empty for AWS", "")
        self.deployer = self.deployer or _ask(
            "How versions of the service are deployed: local, railway, command, none",
            "none",
            lambda text: repository.one_of("deployer", text, repository.DEPLOYERS),
        )
        self.run = self.run or _ask(
            "What runs opskit: scheduler, github, both",
            "both" if self.database else "scheduler",
            lambda text: repository.one_of("run", text, repository.RUNNERS),
        )

    def require(self) -> None:
        """Refuse to go on without what has no default."""
        missing = [] if self.database or self.files else ["--database or --files"]
        missing += [] if self.store else ["--store"]
        if missing:
            raise UsageError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
                "needed: there is no terminal to ask on",
                hint=f"For instance {_EXAMPLE}.",
            )

    def answers(self, folder: Path) -> Answers:
        """Return the answers."""
        from opskit.operations import repository

        return repository.answers(
            databases=self.database,
            folders=self.files,
            store=self.store,
            endpoint=self.endpoint,
            deployer=self.deployer or "none",
            run=self.run or ("both" if self.database else "scheduler"),
            folder=folder,
        )


def _ask_all(question: str, check: Callable[[str], object]) -> list[str]:
    """Ask until the answer is empty; return all others."""
    answers: list[str] = []
    while answer := _ask(
        f"{question}; empty: no{' more' if answers else 'ne'}", "", check
    ):
        answers.append(answer)
    return answers


def _ask(
    question: str,
    default: str | None = None,
    check: Callable[[str], object] = lambda _text: None,
) -> str:
    """Ask until there is an answer that passes the check, or the default."""
    suffix = f" [{default}]" if default else ""
    while True:
        print(f"{question}{suffix}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise UsageError(
                "the answers ended", hint="Run this again; nothing was written."
            )
        answer = line.strip()
        if not answer and default is not None:
            return default
        try:
            check(answer)
        except UsageError as error:
            print(f"{shown(error.message)}. {shown(hint(error.hint))}", file=sys.stderr)
            continue
        if answer:
            return answer


def _require_store(planned: Initialised, *, asks: bool) -> None:
    """Ask whether the missing folder of the store may be made."""
    where = planned.store_folder
    if asks and _ask(f"{where} does not exist. Make it? (y/n)", "y").lower() == "y":
        return
    raise UsageError(
        f"the folder of the store, {where}, does not exist",
        hint="Make it, or give --yes to have it made. Nothing was written.",
    )


def _lines(done: Initialised) -> Iterator[str]:
    if done.is_diff:
        yield from done.diff or ["nothing differs: each file is as init writes it"]
        return
    if done.makes_store:
        yield f"made         {done.store_folder}"
    for each in done.files:
        yield f"{each.state:<11}  {each.path}"
    if not any(each.is_written for each in done.files):
        yield "nothing was changed"
    if any(each.state == "kept" for each in done.files):
        yield "what is kept differs: --diff shows how, --force overwrites it"
