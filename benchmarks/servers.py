"""PostgreSQL servers as `initdb` leaves them: what data comes from and goes to."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from benchmarks.account import process_options, unprivileged, within_reach
from opskit.postgres.servers.confinement import own
from opskit.postgres.servers.programs import (
    SERVER_PROGRAMS,
    Installation,
    installations,
)

SUPERUSER = "bench"
PORT = 5432
_START_SECONDS_MAX = 60
_STOP_SECONDS_MAX = 120
_STATEMENT_SECONDS_MAX = 7200


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server on a private socket."""

    installation: Installation
    data: Path
    socket_dir: Path
    pid: int

    def url(self, database: str) -> str:
        """Return how to connect to a database; there is no password."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql://{SUPERUSER}@{host}:{PORT}/{database}"

    def psql(self, database: str, script: str, *options: str) -> str:
        """Run a script and return what it prints, without alignment.

        Raises:
            RuntimeError: a statement failed.
        """
        command = [self.installation.program("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        finished = subprocess.run(
            [*command, *options, "-f", "-", self.url(database)],
            input=script,
            capture_output=True,
            text=True,
            timeout=_STATEMENT_SECONDS_MAX,
            check=False,
        )
        if finished.returncode != 0:
            raise RuntimeError(f"psql failed: {finished.stderr[-2000:]}")
        return finished.stdout


def choose() -> Installation:
    """Return installed programs, or those of the wheel where there are none.

    Raises:
        RuntimeError: there are neither.
    """
    found = [each for each in installations() if each.has(SERVER_PROGRAMS)]
    if not found:
        raise RuntimeError("no PostgreSQL server programs were found")
    return min(found, key=lambda each: (each.embedded, -each.major))


@contextlib.contextmanager
def ordinary(
    installation: Installation, folder: Path, *, settings: Sequence[str] = ()
) -> Iterator[Server]:
    """Run a new server that has its default settings but for those given.

    It listens on a socket alone. It ends with the block; the caller removes the folder.

    Raises:
        RuntimeError: it does not start; its log is quoted.
    """
    account = unprivileged()
    folder.mkdir(parents=True)
    own(folder, account)
    programs = within_reach(installation, folder)
    options = process_options(account)
    data = folder / "data"
    initdb = [programs.program("initdb"), "-D", str(data), "-U", SUPERUSER]
    initdb += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    subprocess.run(initdb, capture_output=True, check=True, timeout=60, **options)  # type: ignore[call-overload]
    command = [programs.program("postgres"), "-D", str(data), "-k", str(folder)]
    command += ["-c", "listen_addresses=", "-p", str(PORT)]
    for each in settings:
        command += ["-c", each]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)  # type: ignore[call-overload]
    server = Server(
        installation=programs, data=data, socket_dir=folder, pid=process.pid
    )
    try:
        _await(server, process)
        yield server
    finally:
        _stop(process)


def _await(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS_MAX
    words = ""
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.psql("postgres", "SELECT 1")
        except RuntimeError as error:
            words = str(error)
            time.sleep(0.05)
        else:
            return
    log = (server.socket_dir / "server.log").read_text(errors="replace")
    raise RuntimeError(f"the server did not start: {words} {log[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS_MAX)
