"""A folder with a runbook, and a person at a terminal who walks through it."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from tests import processes
from tests.acceptance.conftest import Project

SAMPLE = Path(__file__).parents[1] / "fixtures" / "runbooks" / "table-emptied.md"
_SECONDS_MAX = 180


class Desk(Project):
    """A folder with the sample runbook, a store, and no database."""

    def configure(self, more: str = "", *, url: str | None = None) -> None:
        """Write the configuration."""
        (self.folder / "opskit.toml").write_text(
            f'[stores.local]\nurl = "{self.store.as_uri()}"\n{more}\n'
        )

    def change(self, old: str, new: str) -> None:
        """Change the text of the runbook at one place."""
        path = self.folder / "runbooks" / SAMPLE.name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def rehearse(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Walk through the runbook unattended."""
        given = ("--yes", "--destroys", "orders", *arguments)
        return self.json("runbook", SAMPLE.stem, *given, code=code)

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the ledger."""
        lines = (self.folder / ".opskit" / "ledger.jsonl").read_text().splitlines()
        return [json.loads(each) for each in lines]

    def states(self) -> list[tuple[int, str]]:
        """Return the steps on record, each with its state."""
        return [
            (each["details"]["step"], each["details"]["state"])
            for each in self.records()
            if each["operation"] == "runbook-step"
        ]

    @contextmanager
    def terminal(self, *arguments: str, is_new: bool = False) -> Iterator[Terminal]:
        """Have a person walk through the runbook, in a new interpreter if need be."""
        number, slave = pty.openpty()
        master = os.fdopen(number, "r+b", buffering=0)
        try:
            with self._started(
                ("runbook", SAMPLE.stem, *arguments), slave, is_new=is_new
            ) as process:
                yield Terminal(process, master)
        finally:
            os.close(slave)
            master.close()

    @contextmanager
    def _started(
        self, arguments: Sequence[str], terminal: int, *, is_new: bool
    ) -> Iterator[processes.Forked | subprocess.Popen[bytes]]:
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(self.folder.parent)}
        if not is_new:
            forked = processes.start_inv(
                self.folder,
                arguments,
                environment,
                terminal=Path(os.ttyname(terminal)),
            )
            try:
                yield forked
            finally:
                forked.end()
            return
        with subprocess.Popen(
            ["setsid", "--ctty", processes.ROOT / "inv", *arguments],
            cwd=self.folder,
            env=environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


class Terminal:
    """What a person sees and types."""

    def __init__(
        self, process: processes.Forked | subprocess.Popen[bytes], master: FileIO
    ) -> None:
        self.process = process
        self._master = master
        self._seen = ""

    def expect(self, words: str) -> str:
        """Wait for words, and return all that was printed up to them."""
        deadline = time.monotonic() + _SECONDS_MAX
        while words not in self._seen:
            assert time.monotonic() < deadline, f"no {words!r} in {self._seen!r}"
            self._read(0.1)
        before, _, self._seen = self._seen.partition(words)
        return before + words

    def answer(self, question: str, text: str) -> str:
        """Wait for a question and type the answer; return what came before."""
        before = self.expect(question)
        self.type(f"{text}\n")
        return before

    def type(self, text: str) -> None:
        """Type characters; \\x03 is Ctrl-C, \\x04 the end of input."""
        self._master.write(text.encode())

    def hang_up(self) -> None:
        """Lose the connection."""
        self._master.close()

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and the rest of what was printed."""
        code = self.process.wait(_SECONDS_MAX)
        while self._read(0):
            pass
        return code, self._seen

    def _read(self, seconds: float) -> bool:
        """Read what was printed within a time; return whether there was anything."""
        if self._master.closed or not select.select([self._master], [], [], seconds)[0]:
            return False
        self._seen += (
            os.read(self._master.fileno(), 65536).decode().replace("\r\n", "\n")
        )
        return True
