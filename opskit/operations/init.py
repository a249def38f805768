"""Writes what a repository needs to run opskit; overwrites nothing unasked."""

from __future__ import annotations

import difflib
import os
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opskit import config, files, log
from opskit.errors import ConfigurationError, UsageError
from opskit.operations.outcome import Outcome
from opskit.operations.repository import CONFIGURATION, Answers, contents
from opskit.operations.run import now

_IGNORED = (".opskit/", ".env")


@dataclass(frozen=True, kw_only=True)
class InitRequest:
    """The answers, and whether files that differ are overwritten.

    With `diff` nothing is written.
    """

    answers: Answers
    force: bool = False
    diff: bool = False


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that is written, or kept as it is; `before` is None where none lies."""

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
        old = (self.before or "").splitlines(keepends=True)
        new = self.text.splitlines(keepends=True)
        name = "/dev/null" if self.before is None else f"a/{self.path}"
        for line in difflib.unified_diff(old, new, name, f"b/{self.path}"):
            yield line.rstrip("\n")
            if not line.endswith("\n"):
                yield "\\ No newline at end of file"


@dataclass(frozen=True, kw_only=True)
class Initialised:
    """What became of each file, and what is left to do."""

    files: Sequence[File]
    store_folder: Path | None
    makes_store: bool
    is_diff: bool

    @property
    def diff(self) -> list[str]:
        """The lines of what differs from what lies there."""
        return [line for each in self.files for line in each.diff()]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {
            "files": [{"path": e.path, "state": e.state} for e in self.files],
            "store_folder_made": self.makes_store and not self.is_diff,
            **({"diff": "\n".join(self.diff)} if self.is_diff else {}),
        }


def plan(request: InitRequest, folder: Path) -> Initialised:
    """Return what would be written into the folder, and touch nothing.

    Raises:
        UsageError: the answers make no configuration, or something that is no file
            lies in a place of one.
    """
    answers = request.answers
    _require_possible(answers, folder)
    texts = contents(answers)
    made = [
        _planned(folder, path, text, force=request.force)
        for path, text in texts.items()
    ]
    store = None if answers.on_s3 else Path(answers.store.removeprefix("file://"))
    made.append(_ignoring(folder, store))
    return Initialised(
        files=made,
        store_folder=store,
        makes_store=store is not None and not _is_folder(store),
        is_diff=request.diff,
    )


def init(planned: Initialised, folder: Path) -> Outcome[Initialised]:
    """Write what was planned; make the folder of the store if it is missing.

    Raises:
        UsageError: the operating system refuses.
    """
    started_at, began = now(), time.monotonic()
    if not planned.is_diff:
        try:
            if planned.store_folder is not None and planned.makes_store:
                files.make_directories(planned.store_folder)
            for each in planned.files:
                if each.is_written:
                    _write(folder / each.path, each.text)
        except OSError as error:
            raise UsageError(
                f"{error.filename} cannot be written: {error.strerror}",
                hint="Let this user write there, then run this again: what was "
                "written is whole, and the rest follows.",
            ) from error
    return Outcome(
        operation="init",
        status="ok",
        run_id=log.new_run_id(),
        started_at=started_at,
        seconds=time.monotonic() - began,
        result=planned,
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, [text.encode()], mode=0o644)


def _require_possible(answers: Answers, folder: Path) -> None:
    try:
        config.validated(
            tomllib.loads(contents(answers)[CONFIGURATION]), folder / CONFIGURATION
        )
    except ConfigurationError as error:
        raise UsageError(
            f"the answers make no configuration: {error.summary}",
            hint="Correct what is named there. Nothing was written.",
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
    """Return what lies at a path; None where nothing does."""
    if not os.path.lexists(folder / path):
        return None
    return (folder / path).read_bytes().decode(errors="replace")


def _ignoring(folder: Path, store: Path | None) -> File:
    """Return .gitignore with the entries that it lacks."""
    wanted = list(_IGNORED)
    if store is not None and store.is_relative_to(folder):
        wanted.append(f"/{store.relative_to(folder)}/")
    before = _existing(folder, ".gitignore")
    present = {each.strip().strip("/") for each in (before or "").splitlines()}
    missing = [each for each in wanted if each.strip("/") not in present]
    old = before or ""
    if old and not old.endswith("\n"):
        old += "\n"
    text = old + "".join(f"{each}\n" for each in missing) if missing else old
    state = "unchanged" if not missing else "written" if before is None else "extended"
    return File(path=".gitignore", text=text, before=before, state=state)


def _is_folder(path: Path) -> bool:
    return path.is_dir()
