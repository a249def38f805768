"""Writes what a repository needs to run opskit; overwrites nothing unasked."""

from __future__ import annotations

import difflib
import io
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opskit import __version__, config, files, log
from opskit.errors import ConfigurationError, UsageError
from opskit.operations.outcome import Outcome
from opskit.operations.repository import CONFIGURATION, TASKS, Answers, contents
from opskit.operations.run import now

_IGNORED = (".opskit/", ".env")
_ENVIRONMENT = re.compile(r"^ +environment:(?: |\n +name: )(\S+)", re.MULTILINE)
_PACKAGE = "tasks/__init__.py"
# What is left to do, where it applies.
_NESTED = """\
 is yours and is left alone. These lines at its end add opskit.backup and so on:
    import sys, invoke, opskit.tasks
    ns = invoke.Collection.from_module(sys.modules[__name__])
    ns.add_collection(opskit.tasks.namespace, "opskit")"""
_BESIDE = (
    " is yours and is left alone: copy the one of opskit under another name, from "
    f"{files.documents() / 'workflows'}"
)
_COMPLETE = (
    "complete [smoke] and [release] in opskit.toml: where the service is, and how it "
    "is deployed; docs/releases.md describes both"
)
_PROVE = (
    "`inv doctor` checks that all of it works; `inv backup` and `inv restore-drill` "
    "make the first set and prove it"
)
_SCHEDULE = (
    "`inv scheduler` runs all of it when it is due; docs/scheduler.md has a unit for "
    "systemd"
)
_EITHER = (
    "the scheduler and the workflows do the same work: keep either `schedule` and the "
    "scheduler, or backup.yml and restore-drill.yml"
)
_NOT_RELEASED = (
    f"opskit {__version__} is not released: name a wheel or a commit of it in "
    "requirements-opskit.txt; docs/github.md shows how"
)
_NO_BUCKET = (
    "GitHub's machines do not have the folder of the store, so the workflows fail "
    "there: name a bucket, or run them on a machine of yours"
)
_TEST = "release.yml first runs the task `test` of tasks.py: have it run your tests"
_NO_TEST = "release.yml runs no tests: your tasks.py has no task `test`"
_STAGING = (
    "the job staging in release.yml reads opskit.staging.toml: write that, or set "
    "`if: false` on the job staging"
)
_RUNS_ON = "release.yml must run on the machine of the service: see its runs-on"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file as it is to be, and as it is: `before` is None where none lies."""

    path: str
    text: str
    before: str | None
    state: str

    @property
    def remains(self) -> str:
        """The text that lies there in the end."""
        return (self.before or "") if self.state == "kept" else self.text

    @property
    def is_written(self) -> bool:
        """Whether what lies there changes."""
        return self.state not in ("unchanged", "kept")

    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff."""
        old, new = (list(io.StringIO(each or "")) for each in (self.before, self.text))
        name = "/dev/null" if self.before is None else f"a/{self.path}"
        for line in difflib.unified_diff(old, new, name, f"b/{self.path}"):
            yield line.removesuffix("\n")
            if not line.endswith("\n"):
                yield "\\ No newline at end of file"


@dataclass(frozen=True, kw_only=True)
class Initialised:
    """What becomes of each file; `new_store` is a folder that is to be made.

    `own_tasks` is the file of the user's tasks if it stays, and its text.
    """

    answers: Answers
    folder: Path
    files: Sequence[File]
    new_store: Path | None
    own_tasks: tuple[str, str] | None

    @property
    def diff(self) -> list[str]:
        """The lines of all that differs from what lies there."""
        return [line for each in self.files for line in each.diff()]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {
            "files": [{"path": e.path, "state": e.state} for e in self.files],
            "new_store": str(self.new_store) if self.new_store else None,
        }

    def steps(self) -> list[str]:
        """Return what is left to do, by a person."""
        answers, own = self.answers, self.own_tasks
        workflows = [e for e in self.files if e.path.startswith(".github")]
        text = "".join(each.remains for each in workflows)
        environments, secrets, variables = (
            ", ".join(sorted(set(re.findall(pattern, text))))
            for pattern in (_ENVIRONMENT, r"secrets\.(\w+)", r"vars\.(\w+)")
        )
        top = next((e for e in self.folder.parents if (e / ".git").exists()), None)
        is_top = top is None or (self.folder / ".git").exists()
        releases, on_github = answers.deployer != "none", answers.on_github
        has_release = "opskit release" in text
        steps = (
            (own and "opskit.tasks" not in own[1], f"{own and own[0]}{_NESTED}"),
            *(("opskit" not in e.remains, f"{e.path}{_BESIDE}") for e in workflows),
            (releases, _COMPLETE),
            (True, _PROVE),
            (answers.run != "github", _SCHEDULE),
            (answers.run == "both", _EITHER),
            (
                environments,
                f"on GitHub, make the environments {environments}. Their secrets: "
                f"{secrets}. Their variables: {variables}. docs/github.md says which "
                "are needed",
            ),
            (on_github and "dev" in __version__, _NOT_RELEASED),
            (on_github and answers.store_folder, _NO_BUCKET),
            (has_release, _TEST if "inv test" in text else _NO_TEST),
            ("opskit.staging.toml" in text, _STAGING),
            (has_release and answers.deployer == "local", _RUNS_ON),
            (
                on_github and not is_top,
                f"GitHub reads workflows only in {top}: move .github there",
            ),
        )
        return [step for applies, step in steps if applies]


def plan(answers: Answers, folder: Path, *, force: bool = False) -> Initialised:
    """Return what would be written into the folder, and touch nothing.

    With `force` files that differ would be overwritten.

    Raises:
        UsageError: the answers make no configuration, this is no repository of the
            user, or something that is no file lies in the place of one.
    """
    if folder == files.documents():
        raise UsageError(
            "this is the folder of opskit itself",
            hint="Run this in the repository of your service.",
        )
    # Where there are both, Python takes the package.
    place = _PACKAGE if (folder / _PACKAGE).is_file() else TASKS
    own = None if force and place == TASKS else _existing(folder, place)
    texts = contents(answers, own)
    if place != TASKS:
        del texts[TASKS]
    _require_possible(texts[CONFIGURATION], folder / CONFIGURATION)
    store = answers.store_folder
    if store is not None and os.path.lexists(store) and not store.is_dir():
        raise UsageError(
            f"the store {store} is no folder", hint="Name another with --store."
        )
    return Initialised(
        answers=answers,
        folder=folder,
        files=[
            *(_planned(folder, *each, force=force) for each in texts.items()),
            _ignoring(folder, store),
        ],
        new_store=None if store is None or store.is_dir() else store,
        own_tasks=None if own is None else (place, own),
    )


def _require_possible(text: str, path: Path) -> None:
    if not text.replace("\n", "").isprintable():
        raise UsageError(
            "a URL or a path has characters that cannot be printed",
            hint="Percent-encode them in a URL; rename the folder.",
        )
    try:
        config.validated(tomllib.loads(text), path)
    except ConfigurationError as error:
        raise error.replace(
            hint="The flags, or a variable of the environment, give this value. "
            "Nothing was written."
        ) from error


def init(planned: Initialised) -> Outcome[Initialised]:
    """Write what was planned; make the folder of the store if it is missing.

    Raises:
        UsageError: the operating system refuses.
    """
    if planned.new_store is not None:
        with _translated(planned.new_store):
            files.make_directories(planned.new_store)
    for each in planned.files:
        path = planned.folder / each.path
        if each.is_written:
            with _translated(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_atomically(path, [each.text.encode()], mode=0o644)
    return outcome(planned, "ok")


def outcome(planned: Initialised, status: str = "planned") -> Outcome[Initialised]:
    """Return what was planned, and with `ok` was done."""
    return Outcome(
        operation="init",
        status=status,
        run_id=log.new_run_id(),
        started_at=now(),
        seconds=0,
        result=planned,
    )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}",
            hint="Let this user write there, then run this again: what was written is "
            "whole, and the rest follows.",
        ) from error


def _planned(folder: Path, path: str, text: str, *, force: bool) -> File:
    before = _existing(folder, path)
    if before is None:
        state = "written"
    elif before == text:
        state = "unchanged"
    else:
        state = "overwritten" if force else "kept"
    return File(path=path, text=text, before=before, state=state)


def _existing(folder: Path, path: str) -> str | None:
    """Return what lies at a path below the folder; None where nothing does.

    Raises:
        UsageError: it is no file, or cannot be read; or a folder on the way is none.
    """
    place = folder / path
    around = place.parents[: len(Path(path).parts) - 1]
    try:
        if any(e.is_symlink() or (e.exists() and not e.is_dir()) for e in around):
            reason = "it does not lie in a folder"
        elif not os.path.lexists(place):
            return None
        elif not stat.S_ISREG(place.stat().st_mode):
            reason = "it is no file"
        else:
            return place.read_bytes().decode(errors="replace")
    except OSError as error:
        reason = error.strerror or type(error).__name__
    raise UsageError(
        f"{place} can be neither read nor written: {reason}",
        hint="Move away what is there. Nothing was written.",
    )


def _ignoring(folder: Path, store: Path | None) -> File:
    """Return .gitignore with the entries that it lacks; one that is a link is kept."""
    wanted = list(_IGNORED)
    if store is not None and store.resolve().is_relative_to(folder):
        wanted.append(f"/{store.resolve().relative_to(folder)}/")
    before = _existing(folder, ".gitignore")
    old = before or ""
    present = {each.strip().strip("/") for each in old.splitlines()}
    missing = [each for each in wanted if each.strip("/") not in present]
    if not missing:
        return File(path=".gitignore", text=old, before=before, state="unchanged")
    text = old + "\n" * (old[-1:] not in ("", "\n")) + "\n".join([*missing, ""])
    is_link = (folder / ".gitignore").is_symlink()
    state = "written" if before is None else "kept" if is_link else "extended"
    return File(path=".gitignore", text=text, before=before, state=state)
