"""Throw-away servers: on a private socket, tuned to be lost, gone with their owner."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from opskit import workspace
from opskit.errors import DatabaseError, ServerFault
from opskit.postgres.parameters import arguments, parse, throwaway_url
from opskit.postgres.servers import confinement as accounts
from opskit.postgres.servers.confinement import Confinement, Reach, confine
from opskit.postgres.servers.programs import Installation

# Nothing here must survive a crash: the data exists elsewhere, and is compared.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "wal_init_zero": "off",
    "checkpoint_timeout": "1d",
    "autovacuum": "off",
    # Little: what is loaded once and read once the system's cache holds as well, and
    # memory that is new costs more than what is found again in it.
    "shared_buffers": "64MB",
    "maintenance_work_mem": "256MB",
    "max_parallel_maintenance_workers": "2",
    "max_locks_per_transaction": "1024",
    "jit": "off",
}
_QUICK_COMPRESSION = "lz4"


def add_what_it_can(connection: psycopg.Connection) -> None:
    """Set what only some servers can: others would not start with it.

    Columns that name no compression are then compressed in a fraction of the time; what
    they hold, and how they are declared, is the same.
    """
    connection.autocommit = True
    able = connection.execute(
        "SELECT %s = ANY (enumvals) FROM pg_settings "
        "WHERE name = 'default_toast_compression' AND source = 'default'",
        [_QUICK_COMPRESSION],
    ).fetchone()
    if able == (True,):
        connection.execute(
            f"ALTER SYSTEM SET default_toast_compression = {_QUICK_COMPRESSION}"
        )
        connection.execute("SELECT pg_reload_conf()")


KIND = "server"
# No source will have a role of this name, so that all of its roles can be created.
SUPERUSER = "opskit_throwaway"
PORT = 5432
_START_SECONDS_MAX = 60
_STOP_SECONDS_MAX = 30
_SOCKET_PATH_BYTES_MAX = 100
_SOCKET_KIND = "socket"
_SOCKET_BASE = Path("/tmp")  # noqa: S108
_LOG_LINES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running throw-away server."""

    installation: Installation
    folder: Path
    socket_dir: Path
    port: int = PORT
    confinement: str = ""

    def url(self, database: str = "postgres") -> str:
        """Return how to connect to a database; no password of the user is looked up."""
        return throwaway_url(
            host=str(self.socket_dir),
            port=self.port,
            user=SUPERUSER,
            database=database,
            passfile=str(self.folder / "no-passwords"),
        )


@contextlib.contextmanager
def throwaway(
    installation: Installation,
    *,
    base: Path | None = None,
    port: int = PORT,
    settings: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Yield a running server that is gone, with its folder, when the block ends.

    It listens on a unix socket in a folder that only its user may enter, and is kept
    apart from the machine as far as the kernel allows (`confinement.py`); it has the
    machine's network only if the settings make it listen there. All that it started
    ends with it, and with us. What killed runs left behind is removed first.
    DatabaseError: it cannot be set up or does not start.
    """
    settings = settings or {}
    sweep(base)
    with workspace.throwaway(KIND, base=base) as folder:
        data = folder / "data"
        data.mkdir()
        with _socket_dir(folder) as socket_dir:
            reach = Reach(
                folder=folder,
                shared=(data, socket_dir),
                network=bool(settings.get("listen_addresses")),
            )
            confinement, local = confine(installation, reach)
            _initialise(local, data, confinement)
            server = Server(
                installation=local,
                folder=folder,
                socket_dir=socket_dir,
                port=port,
                confinement=confinement.description,
            )
            process = _start(server, confinement, settings)
            try:
                _await(server, process)
                yield server
            finally:
                _stop(process)


def sweep(base: Path | None = None) -> list[Path]:
    """Remove throw-away servers whose owner is dead, and return their folders."""
    removed = workspace.sweep(KIND, base=base, before_removal=_wait_for_end)
    workspace.sweep(_SOCKET_KIND, base=_SOCKET_BASE)
    return removed


def _wait_for_end(folder: Path) -> None:
    """Wait for a server whose owner has died: its processes keep the log locked."""
    deadline = time.monotonic() + _STOP_SECONDS_MAX
    with contextlib.suppress(OSError), (folder / "server.log").open("rb") as log:
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            time.sleep(0.05)


@contextlib.contextmanager
def _socket_dir(folder: Path) -> Iterator[Path]:
    """Yield a folder whose path is short enough for a socket's address."""
    inside = folder / "socket"
    if len(os.fsencode(inside)) <= _SOCKET_PATH_BYTES_MAX - len("/.s.PGSQL.5432"):
        inside.mkdir()
        yield inside
        return
    with workspace.throwaway(_SOCKET_KIND, base=_SOCKET_BASE) as elsewhere:
        yield elsewhere


def _initialise(
    installation: Installation, data: Path, confinement: Confinement
) -> None:
    command = [installation.program("initdb"), f"--pgdata={data}", "--auth=trust"]
    command += [f"--username={SUPERUSER}", "--encoding=UTF8", "--locale=C"]
    command += ["--no-sync", "--no-instructions"]
    try:
        finished = confinement.initialise(command, data)
    except subprocess.TimeoutExpired as error:
        raise ServerFault(
            f"initdb took longer than {error.timeout:g} seconds",
            hint="The machine is busy, or its temporary folder is slow: try again.",
        ) from None
    if finished.returncode != 0:
        words = (finished.stdout + finished.stderr).decode("utf-8", "replace")
        raise DatabaseError(
            "initdb failed", said=_last_lines(words), hint=_initdb_hint()
        )


def _initdb_hint() -> str:
    if accounts.has_name(os.geteuid()):
        return "See the message of initdb; work_dir in [drill] can name another folder."
    return (
        f"initdb needs a name for the user number {os.geteuid()}: install "
        "libnss-wrapper, add a line for it to /etc/passwd, or let this user make "
        "namespaces (unshare, setpriv)."
    )


def _start(
    server: Server, confinement: Confinement, settings: dict[str, str]
) -> subprocess.Popen[bytes]:
    command = [server.installation.program("postgres")]
    command += ["-D", str(server.folder / "data"), "-k", str(server.socket_dir)]
    command += ["-p", str(server.port)]
    for name, value in (SETTINGS | settings).items():
        command += ["-c", f"{name}={value}"]
    return confinement.start(command, server.folder / "server.log")


def _await(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with psycopg.connect(**arguments(parse(server.url()))) as connection:
                add_what_it_can(connection)
        except psycopg.OperationalError:
            time.sleep(0.02)
        else:
            return
    log = (server.folder / "server.log").read_text(encoding="utf-8", errors="replace")
    raise DatabaseError(
        "the throw-away server did not start",
        said=_last_lines(log),
        hint="The lines are from its log; [drill] work_dir moves it to another folder.",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and all that it started: nothing in it must be saved."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout=_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_lines(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-_LOG_LINES_SHOWN:])
