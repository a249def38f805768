"""A folder with a runbook, and a person at a terminal who walks through it."""

from __future__ import annotations

import json
import os
import pty
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import processes
from tests.acceptance.conftest import Project

SAMPLE = Path(__file__).parents[1] / "fixtures" / "runbooks" / "table-emptied.md"
_SECONDS_MAX = 60


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
    def terminal(self, *arguments: str) -> Iterator[Terminal]:
        """Have a person walk through the runbook; whatever runs then ends with it."""
        master, slave = pty.openpty()
        try:
            process = processes.start_inv(
                self.folder,
                ("runbook", SAMPLE.stem, *arguments),
                {"PATH": os.environ["PATH"], "TMPDIR": str(self.folder.parent)},
                terminal=Path(os.ttyname(slave)),
            )
            try:
                yield Terminal(process, master)
            finally:
                process.end()
        finally:
            os.close(slave)
            os.close(master)


class Terminal:
    """What a person sees and types."""

    def __init__(self, process: processes.Forked, master: int) -> None:
        self.process = process
        self._master = master
        self._seen = ""

    def expect(self, words: str) -> str:
        """Wait for words, and return all that was printed up to them."""
        deadline = time.monotonic() + _SECONDS_MAX
        while words not in self._seen:
            assert time.monotonic() < deadline, f"no {words!r} in {self._seen!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                printed = os.read(self._master, 65536)
                self._seen += printed.decode().replace("\r\n", "\n")
        before, _, self._seen = self._seen.partition(words)
        return before + words

    def answer(self, question: str, text: str) -> str:
        """Wait for a question and type the answer; return what came before."""
        before = self.expect(question)
        self.type(f"{text}\n")
        return before

    def type(self, text: str) -> None:
        """Type characters; \\x03 is Ctrl-C, \\x04 the end of input."""
        os.write(self._master, text.encode())

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and the rest of what was printed."""
        code = self.process.wait(_SECONDS_MAX)
        while select.select([self._master], [], [], 0)[0]:
            printed = os.read(self._master, 65536)
            self._seen += printed.decode().replace("\r\n", "\n")
        return code, self._seen
