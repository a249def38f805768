"""Throw-away servers: on a private socket, tuned to be lost, gone with their owner."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from opskit import workspace
from opskit.errors import DatabaseError
from opskit.postgres import throwaway_settings
from opskit.postgres.account import (
    Account,
    own,
    process_options,
    unprivileged,
    within_reach,
)
from opskit.postgres.conninfo import without_environment
from opskit.postgres.programs import Installation

KIND = "server"
# No source will have a role of this name, so that all of its roles can be created.
SUPERUSER = "opskit_throwaway"
PORT = 5432
_START_SECONDS_MAX = 60
_STOP_SECONDS_MAX = 30
_SOCKET_PATH_BYTES_MAX = 100
_LOG_LINES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running throw-away server."""

    installation: Installation
    folder: Path
    socket_dir: Path
    port: int = PORT

    def url(self, database: str = "postgres") -> str:
        """Return how to connect to one of its databases; there is no password."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql://{SUPERUSER}@{host}:{self.port}/{quote(database, safe='')}"


@contextlib.contextmanager
def throwaway(
    installation: Installation,
    *,
    base: Path | None = None,
    port: int = PORT,
    settings: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Yield a running server that is gone, with its folder, when the block ends.

    It listens on a unix socket in a folder that only its user may enter. Started by
    root, it runs as an unprivileged user, as PostgreSQL demands. Servers that a
    killed run left behind are removed first.

    Raises:
        DatabaseError: it cannot be set up or does not start; its log is quoted.
    """
    sweep(base)
    with without_environment(), workspace.throwaway(KIND, base=base) as folder:
        account = unprivileged()
        local = within_reach(installation, folder, account)
        data = folder / "data"
        with _socket_dir(folder) as socket_dir:
            own(folder, account)
            own(socket_dir, account)
            _initialise(local, data, account)
            server = Server(
                installation=local, folder=folder, socket_dir=socket_dir, port=port
            )
            process = _start(server, account, settings or {})
            try:
                _await(server, process)
                yield server
            finally:
                _stop(process)


def sweep(base: Path | None = None) -> list[Path]:
    """Remove throw-away servers whose owner is dead, and return their folders."""
    return workspace.sweep(KIND, base=base, before_removal=_stop_leftover)


@contextlib.contextmanager
def _socket_dir(folder: Path) -> Iterator[Path]:
    """Yield a folder whose path is short enough for a socket's address."""
    inside = folder / "socket"
    if len(os.fsencode(inside)) <= _SOCKET_PATH_BYTES_MAX - len("/.s.PGSQL.5432"):
        inside.mkdir(mode=0o700)
        yield inside
        return
    elsewhere = Path(tempfile.mkdtemp(prefix=f"{workspace.PREFIX}socket-", dir="/tmp"))
    try:
        yield elsewhere
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


def _initialise(
    installation: Installation, data: Path, account: Account | None
) -> None:
    finished = subprocess.run(  # type: ignore[call-overload]
        [
            installation.program("initdb"),
            f"--pgdata={data}",
            f"--username={SUPERUSER}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_START_SECONDS_MAX,
        check=False,
        **process_options(account),
    )
    if finished.returncode != 0:
        words = (finished.stderr + finished.stdout).decode("utf-8", "replace")
        raise DatabaseError(
            f"initdb failed: {_last_lines(words)}",
            hint="Check free space in the temporary folder "
            "([drill] work_dir names another).",
        )


def _start(
    server: Server, account: Account | None, settings: dict[str, str]
) -> subprocess.Popen[bytes]:
    arguments = [server.installation.program("postgres")]
    arguments += ["-D", str(server.folder / "data"), "-k", str(server.socket_dir)]
    arguments += ["-p", str(server.port)]
    for name, value in (throwaway_settings.SETTINGS | settings).items():
        arguments += ["-c", f"{name}={value}"]
    with (server.folder / "server.log").open("wb") as log:
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **process_options(account),
        )


def _await(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with psycopg.connect(server.url(), connect_timeout=5) as connection:
                throwaway_settings.add_what_it_can(connection)
        except psycopg.OperationalError:
            time.sleep(0.02)
        else:
            return
    log = (server.folder / "server.log").read_text(encoding="utf-8", errors="replace")
    raise DatabaseError(
        f"the throw-away server did not start: {_last_lines(log)}",
        hint="The lines are from its log; [drill] work_dir moves it to another folder.",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGQUIT)  # at once: nothing in it must be saved
        try:
            process.wait(timeout=_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stop_leftover(folder: Path) -> None:
    """End the server in a folder whose owner died, known by its own pid file."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
        pid, socket_dir = int(lines[0]), Path(lines[4])
    except (OSError, ValueError, IndexError):
        return
    if not _is_server_of(pid, folder / "data"):
        return
    deadline = time.monotonic() + _STOP_SECONDS_MAX
    while _is_server_of(pid, folder / "data") and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
        time.sleep(0.05)
    if socket_dir.name.startswith(f"{workspace.PREFIX}socket-"):
        shutil.rmtree(socket_dir, ignore_errors=True)


def _is_server_of(pid: int, data: Path) -> bool:
    """Return whether a process is the server of a data folder; numbers are reused."""
    try:
        words = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=_STOP_SECONDS_MAX,
            check=False,
        ).stdout
    except OSError:
        # Without ps the kernel's own table serves, where there is one.
        try:
            words = (
                Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            )
        except OSError:
            return False
    return f"-D {data} " in f"{words} "


def _last_lines(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-_LOG_LINES_SHOWN:])
