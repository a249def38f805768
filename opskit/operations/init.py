"""Writes what a repository needs to run opskit; overwrites nothing unasked."""

from __future__ import annotations

import difflib
import io
import re
import stat
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opskit import config, files, log
from opskit.errors import ConfigurationError, UsageError
from opskit.operations.outcome import Outcome
from opskit.operations.repository import CONFIGURATION, TASKS, Answers, contents
from opskit.operations.run import now

_IGNORED = (".opskit/", ".env")
_ENVIRONMENT = re.compile(r"^ +environment:(?: |\n +name: )(\S+)", re.MULTILINE)
_PACKAGE = "tasks/__init__.py"
_OWN_TASKS_STEP = """\
{path} is yours and is left alone. These lines at its end add opskit.backup and so on:
    import sys, invoke, opskit.tasks
    ns = invoke.Collection.from_module(sys.modules[__name__])
    ns.add_collection(opskit.tasks.namespace, "opskit")"""


@dataclass(frozen=True, kw_only=True)
class InitRequest:
    """The answers, the folder, and whether files that differ are overwritten.

    With `diff` nothing is written.
    """

    answers: Answers
    folder: Path
    force: bool = False
    diff: bool = False


@dataclass(frozen=True, kw_only=True)
class File:
    """A file as it is to be, and as it is: `before` is None where none lies."""

    path: str
    text: str
    before: str | None
    state: str

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
    """What becomes of each file; `new_store` is a folder that is to be made."""

    request: InitRequest
    files: Sequence[File]
    new_store: Path | None

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

    def steps(self) -> Iterator[str]:
        """Yield what is left to do, by a person."""
        answers = self.request.answers
        path, text = own_tasks(self.request)
        if text is not None and "opskit.tasks" not in text:
            yield _OWN_TASKS_STEP.format(path=path)
        if answers.deployer != "none":
            yield (
                f"complete [smoke] and [release] in {CONFIGURATION}: where the service "
                "is, and how it is deployed; docs/releases.md describes both"
            )
        yield (
            "`inv doctor` checks that all of it works; `inv backup` and "
            "`inv restore-drill` make the first set and prove it"
        )
        if answers.scheduled:
            yield (
                "`inv scheduler` runs all of it when it is due; docs/scheduler.md has "
                "a unit for systemd"
            )
        if answers.run == "both":
            yield (
                "the scheduler and the workflows do the same work: keep either "
                "`schedule` and the scheduler, or backup.yml and restore-drill.yml"
            )
        if answers.on_github:
            yield from self._steps_on_github()

    def _steps_on_github(self) -> Iterator[str]:
        answers, folder = self.request.answers, self.request.folder
        text = "".join(e.text for e in self.files if e.path.startswith(".github"))
        environments, secrets, variables = (
            ", ".join(sorted(set(re.findall(pattern, text))))
            for pattern in (_ENVIRONMENT, r"secrets\.(\w+)", r"vars\.(\w+)")
        )
        yield (
            f"on GitHub, make the environments {environments}. Their secrets: "
            f"{secrets}. Their variables: {variables}. docs/github.md says which are "
            "needed"
        )
        if not answers.on_s3:
            yield (
                "GitHub's machines do not have the folder of the store, so the "
                "workflows fail there: name a bucket, or run them on a machine of yours"
            )
        if answers.deployer != "none":
            yield (
                f"release.yml begins with the task test of {TASKS}: have it run your "
                "tests"
                if "inv test" in text
                else "release.yml tests nothing, for want of a task test of yours"
            )
            yield (
                "the job staging in release.yml reads opskit.staging.toml: write that, "
                "or delete the job and its name in `needs`"
            )
        if answers.deployer == "local":
            yield "release.yml must run on the machine of the service: see its runs-on"
        top = next((e for e in folder.parents if (e / ".git").exists()), None)
        if top is not None and not (folder / ".git").exists():
            yield f"GitHub reads workflows only in {top}: move .github there"


def plan(request: InitRequest) -> Initialised:
    """Return what would be written, and touch nothing.

    Raises:
        UsageError: the answers make no configuration, this is no repository of the
            user, or something that is no file lies in the place of one.
    """
    answers, folder = request.answers, request.folder
    if folder == files.documents():
        raise UsageError(
            "this is the folder of opskit itself",
            hint="Run this in the repository of your service.",
        )
    place, own = own_tasks(request)
    texts = contents(answers, own)
    if place != TASKS:
        del texts[TASKS]
    if not texts[CONFIGURATION].replace("\n", "").isprintable():
        raise UsageError(
            "a URL or a path has characters that cannot be printed",
            hint="Percent-encode them in a URL; rename the folder.",
        )
    try:
        config.validated(tomllib.loads(texts[CONFIGURATION]), folder / CONFIGURATION)
    except ConfigurationError as error:
        raise error.replace(
            hint="The flags, or a variable of the environment, give this value. "
            "Nothing was written."
        ) from error
    planned = [_planned(request, *each) for each in texts.items()]
    store = answers.store_folder
    return Initialised(
        request=request,
        files=[*planned, _ignoring(folder, store)],
        new_store=None if store is None or _is_folder(store) else store,
    )


def own_tasks(request: InitRequest) -> tuple[str, str | None]:
    """Return the file of the user's own tasks, and its text; none if it is replaced.

    Where there are both, Python takes the package.
    """
    folder = request.folder
    if (folder / _PACKAGE).is_file():
        return _PACKAGE, _existing(folder, _PACKAGE)
    return TASKS, None if request.force else _existing(folder, TASKS)


def init(planned: Initialised) -> Outcome[Initialised]:
    """Write what was planned; make the folder of the store if it is missing.

    Raises:
        UsageError: the operating system refuses.
    """
    started_at, began = now(), time.monotonic()
    if not planned.request.diff:
        if planned.new_store is not None:
            with _translated(planned.new_store):
                files.make_directories(planned.new_store)
        for each in planned.files:
            if each.is_written:
                path = planned.request.folder / each.path
                with _translated(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    files.write_atomically(path, [each.text.encode()], mode=0o644)
    return Outcome(
        operation="init",
        status="ok",
        run_id=log.new_run_id(),
        started_at=started_at,
        seconds=round(time.monotonic() - began, 3),
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


def _planned(request: InitRequest, path: str, text: str) -> File:
    before = _existing(request.folder, path)
    if before is None:
        state = "written"
    elif before == text:
        state = "unchanged"
    else:
        state = "overwritten" if request.force else "kept"
    return File(path=path, text=text, before=before, state=state)


def _existing(folder: Path, path: str) -> str | None:
    """Return what lies at a path below the folder; None where nothing does.

    Raises:
        UsageError: it is no file, or cannot be read; or a folder on the way is none.
    """
    place = folder / path
    for each in place.parents:
        if each == folder:
            break
        if each.is_symlink() or (each.exists() and not each.is_dir()):
            raise UsageError(
                f"{each} is no folder", hint="Move it away. Nothing was written."
            )
    try:
        if not stat.S_ISREG(place.stat().st_mode):
            raise UsageError(
                f"{place} is no file", hint="Move it away. Nothing was written."
            )
        return place.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        if place.is_symlink():
            raise UsageError(
                f"{place} is a link that leads nowhere",
                hint="Remove it. Nothing was written.",
            ) from None
        return None
    except OSError as error:
        raise UsageError(
            f"{place} cannot be read: {error.strerror}",
            hint="Let this user read it. Nothing was written.",
        ) from error


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


def _is_folder(store: Path) -> bool:
    if store.is_dir():
        return True
    if store.exists() or store.is_symlink():
        raise UsageError(
            f"the store {store} is no folder", hint="Name another with --store."
        )
    return False
