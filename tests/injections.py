"""Errors of the operating system, injected by strace at the calls that a task makes.

The whole campaign is a command of its own; the tests take a part of it:

    python -m tests.injections --tasks backup,restore-drill --most 20
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SECONDS_MAX = 300
# Only the calls that are traced stop the program, by a filter in the kernel.
_STRACE = ("strace", "-f", "--seccomp-bpf", "-q")
# Only what a machine may refuse at any time; `openat` and `getdents64` are also what
# Python itself imports by, so that most of their errors strike before a task begins.
ERRORS = {
    "write": ("EIO", "ENOSPC"),
    "fsync": ("EIO", "ENOSPC"),
    "rename": ("EIO", "EPERM"),
    "link": ("EIO",),
    "unlink": ("EPERM", "EIO"),
    "unlinkat": ("EIO",),
    "rmdir": ("EIO",),
    "mkdir": ("ENOSPC", "EPERM"),
    "fchmod": ("EPERM",),
    "flock": ("ENOLCK", "EIO"),
    "clone3": ("EAGAIN",),
    "pipe2": ("EMFILE",),
    "socket": ("EMFILE",),
    "openat": ("EMFILE", "EIO"),
    "read": ("EIO",),
}
TASKS = {
    "backup": ("backup", "--database", "shop"),
    "backup-folder": ("backup", "--files", "state"),
    "restore-drill": ("restore-drill", "--database", "shop", "--mutants", "2"),
    "drill-folder": ("restore-drill", "--files", "state"),
    "restore-folder": ("restore", "--backup", "{folder}", "--to", "restored"),
    "restore": ("restore", "--backup", "{database}", "--to", "{target}"),
    "verify": ("verify",),
    "prune": ("prune",),
    "copy": ("copy", "--from", "local", "--to", "second"),
    "backups": ("backups",),
    "ledger": ("ledger", "--verify"),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """The `number`th call of each process and thread of a task fails with an error."""

    task: str
    call: str
    error: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a task ended, and what is wrong with that; empty where nothing is."""

    case: Case
    code: int
    faults: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A configured folder with one set of a database and one of a folder."""

    folder: Path
    backup_ids: dict[str, str]

    def start(
        self, task: str, *before: str | Path
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a task to its end, as the last words of a command line."""
        names = {**self.backup_ids, "target": f"back_{os.getpid()}"}
        words = [each.format(**names) for each in TASKS[task]]
        return _run([*map(str, before), *_program(), *words], self.folder)


def make_ground(folder: Path, url: str) -> Ground:
    """Configure a database and a folder in `folder`, and back both up."""
    for name in ("store", "second", "state"):
        (folder / name).mkdir(parents=True)
    for name in "abc":
        (folder / "state" / name).write_text(name * 1000)
    (folder / "opskit.toml").write_text(
        f"[databases.shop]\nurl = {json.dumps(url)}\n"
        f"[files.state]\npath = {json.dumps(str(folder / 'state'))}\n"
        f"[stores.local]\nurl = {json.dumps((folder / 'store').as_uri())}\n"
    )
    made = _run([*_program(), "backup", "--json"], folder)
    assert made.returncode == 0, made.stderr
    sets = json.loads(made.stdout)["backups"]
    with (folder / "opskit.toml").open("a") as file:
        file.write(f"[stores.second]\nurl = {json.dumps((folder / 'second').as_uri())}")
    ids = {each["source"]: each["backup_id"] for each in sets}
    return Ground(
        folder=folder, backup_ids={"database": ids["shop"], "folder": ids["state"]}
    )


def cases(ground: Ground, task: str, *, most: int) -> list[Case]:
    """Return the cases of a task: at most so many numbers of each call, spread evenly.

    The task is run once, to count its calls.
    """
    trace = ground.folder.with_name(ground.folder.name + ".trace")
    counting = (*_STRACE, "-ff", "-e", f"trace={','.join(ERRORS)}", "-o", trace)
    with _copied(ground) as copy:
        copy.start(task, *counting)
    numbers: collections.Counter[str] = collections.Counter()
    for path in trace.parent.glob(f"{trace.name}.*"):
        words = path.read_text(errors="replace").splitlines()
        made = collections.Counter(each.partition("(")[0] for each in words)
        numbers |= made  # the most that one process or thread makes
        path.unlink()
    return [
        Case(task=task, call=call, error=errors[index % len(errors)], number=number)
        for call, errors in ERRORS.items()
        for index, number in enumerate(_spread(numbers[call], most))
    ]


def inject(ground: Ground, case: Case) -> Ended:
    """Run a case on a copy of the ground and judge how the task ended."""
    injected = f"inject={case.call}:error={case.error}:when={case.number}"
    strace = (*_STRACE, "-e", f"trace={case.call}", "-e", injected)
    with _copied(ground) as copy:
        ended = copy.start(case.task, *strace, "-o", "/dev/null")
        faults = _halves(copy.folder / "store")
    words = (ended.stdout + ended.stderr).decode(errors="replace")
    # What Python cannot import before opskit begins is not for opskit to report.
    is_ours = "opskit/__main__.py" in words or "Traceback" not in words
    if (ended.returncode == 1 or "Traceback" in words) and is_ours:
        faults += words.strip().splitlines()[-2:]
    return Ended(case=case, code=ended.returncode, faults=tuple(faults))


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(1, count + 1))
    # The last ones are the most telling: Python's own come first.
    return sorted({count - index * count // most for index in range(most)})


def _halves(store: Path) -> list[str]:
    """Return which listed sets lack an object, or hold one that is damaged."""
    faults = []
    for manifest in store.rglob("manifest.json"):
        for each in json.loads(manifest.read_bytes())["objects"]:
            path = store / each["key"]
            if not path.exists():
                faults.append(f"{each['key']} is missing")
            elif hashlib.sha256(path.read_bytes()).hexdigest() != each["sha256"]:
                faults.append(f"{each['key']} is damaged")
    return faults


class _copied:
    """A copy of the ground, gone when the block ends."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._folder = Path(tempfile.mkdtemp(dir=ground.folder.parent))

    def __enter__(self) -> Ground:
        # In place of the original, for the configuration names folders.
        shutil.copytree(self._ground.folder, self._folder / "kept", symlinks=True)
        return self._ground

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self._ground.folder)
        (self._folder / "kept").rename(self._ground.folder)
        self._folder.rmdir()


def _program() -> list[str]:
    return [sys.executable, "-m", "opskit"]


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        arguments,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT),
             "TMPDIR": str(folder.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS_MAX,
        check=False,
    )  # fmt: skip


def _campaign(tasks: list[str], most: int) -> Iterator[Ended]:
    from opskit.postgres.connect import connect
    from opskit.postgres.database import run_script
    from opskit.postgres.servers import programs, throwaway
    from tests.sample import SAMPLE

    found = programs.find_server(programs.installations(), major=16)
    with throwaway.throwaway(found) as running, tempfile.TemporaryDirectory() as folder:
        with connect(running.url(), purpose="test") as connection:
            run_script(connection, "CREATE DATABASE shop")
        with connect(running.url("shop"), purpose="test") as connection:
            run_script(connection, SAMPLE)
        ground = make_ground(Path(folder) / "ground", running.url("shop"))
        for task in tasks:
            for case in cases(ground, task, most=most):
                with connect(running.url(), purpose="test") as connection:
                    run_script(
                        connection,
                        f"DROP DATABASE IF EXISTS back_{os.getpid()} WITH (FORCE)",
                    )
                yield inject(ground, case)


def main() -> None:
    """Run the campaign; print what is wrong, then how often each task ended how."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--most", type=int, default=20, help="numbers of each call")
    options = parser.parse_args()
    codes: dict[str, collections.Counter[int]] = {}
    for ended in _campaign(options.tasks.split(","), options.most):
        codes.setdefault(ended.case.task, collections.Counter())[ended.code] += 1
        if ended.faults:
            print(ended, flush=True)
    for task, counted in codes.items():
        print(task, sum(counted.values()), "cases, by exit code:", dict(counted))


if __name__ == "__main__":
    main()
