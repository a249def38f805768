"""Campaign: acts the cases, each on a site of its own beside a client that writes."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.throwaway import Server
from tests.ports import free_port
from tests.releases.cases import Case
from tests.releases.site import Ground, make_ground
from tests.releases.writer import Writer
from tests.support import execute


def cells(name: str, codes: Sequence[int], version: str, schema: str) -> str:
    """Return the cells of a row that are the same each time."""
    shown = ", ".join("killed" if each < 0 else str(each) for each in codes)
    return f"{name} | {shown} | {version} | {schema}"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a case ended: what opskit returned, what runs, and what became of requests."""

    codes: tuple[int, ...]
    errors: tuple[str, ...]
    version: str
    schema: str
    confirmed: int
    failed: int
    lost: int
    seconds: float

    def faults(self, case: Case) -> list[str]:
        """Return what is not as it must be."""
        wanted = (case.codes, case.version, case.schema)
        got = (self.codes, self.version, self.schema)
        faults = (
            []
            if wanted == got
            else [f"expected {wanted}, observed {got}: {self.errors}"]
        )
        if self.lost:
            faults.append(f"{self.lost} committed rows are lost")
        if not self.confirmed:
            faults.append("no row was committed")
        return faults

    def row(self, case: Case) -> str:
        """Return a row of the table in docs/releases.md."""
        begin = cells(case.name, self.codes, self.version, self.schema)
        return (
            f"| {begin} | "
            f"{self.failed} of {self.failed + self.confirmed} | {self.lost} | "
            f"{self.seconds:.0f} |"
        )


@contextlib.contextmanager
def listening() -> Iterator[tuple[Server, int]]:
    """Yield a server that trusts whoever connects on this machine, and its port."""
    found = programs.find_server(programs.installations(), major=16)
    port = free_port()
    settings = {"listen_addresses": "127.0.0.1"}
    with throwaway.throwaway(found, port=port, settings=settings) as server:
        hba = server.folder / "data" / "pg_hba.conf"
        hba.write_text("host all all 127.0.0.1/32 trust\nlocal all all trust\n")
        execute(server.url(), "SELECT pg_reload_conf()")
        yield server, port


@contextlib.contextmanager
def ground(*, drilled: bool = True) -> Iterator[Ground]:
    """Yield a ground of its own, in a temporary folder."""
    with (
        tempfile.TemporaryDirectory(prefix="releases-") as folder,
        listening() as (server, port),
    ):
        yield make_ground(Path(folder), server, port, drilled=drilled)


def act(made: Ground, case: Case) -> Ended:
    """Act a case, and look at what is there in the end."""
    with made.site() as site:
        writer = Writer(url=f"http://127.0.0.1:{site.port}", key=made.keys["client"])
        with writer:
            began = time.monotonic()
            case.act(site)
            seconds = time.monotonic() - began
            site.await_answer()
            time.sleep(0.2)
        return Ended(
            codes=tuple(site.codes),
            errors=tuple(site.errors),
            version=site.version,
            schema=site.schema,
            confirmed=len(writer.confirmed),
            failed=writer.failed,
            lost=site.lost(writer.confirmed),
            seconds=seconds,
        )
