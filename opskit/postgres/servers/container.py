"""Throw-away servers in containers: out of any image that holds PostgreSQL."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from opskit import workspace
from opskit.errors import ClientToolError, DatabaseError
from opskit.postgres.parameters import arguments, parse, throwaway_url
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.throwaway import PORT, SUPERUSER

if TYPE_CHECKING:
    from opskit.postgres.servers.engine import Box


KIND = "container"
_CONNECT_SECONDS_MAX = 5
_POLL_SECONDS = 0.1
# What tells whether a container's owner lives: its folder; the very folder that this
# one lies in, as services may each have a /tmp of their own; the machine's last start.
_FOLDER = "org.opskit.folder"
_BASE = "org.opskit.base"
_BOOT = "org.opskit.boot"
# Here it listens on the container's own network, and on no socket.
_SETTINGS = {
    name: value
    for name, value in throwaway.SETTINGS.items()
    if not name.startswith(("listen_", "unix_socket_"))
} | {"listen_addresses": "*", "unix_socket_directories": ""}

# In place of the image's entry point: those of official images run scripts that make
# databases and extensions, which a restore would then find in its way.
_SCRIPT = r"""
set -eu
umask 077
initdb=$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb \
    /usr/pgsql-*/bin/initdb /usr/libexec/postgresql*/initdb 2>/dev/null |
    sort -V | tail -n 1)
if [ -z "$initdb" ]; then
    echo "no initdb in this image: it does not hold a PostgreSQL server" >&2
    exit 127
fi
programs=$(dirname "$(readlink -f "$initdb")")
folder=$(mktemp -d)
printf '%s\n' "$OPSKIT_PASSWORD" >"$folder/password"
unset OPSKIT_PASSWORD
"$programs/initdb" --pgdata="$folder/data" --username="$OPSKIT_SUPERUSER" \
    --auth-host=scram-sha-256 --auth-local=scram-sha-256 \
    --pwfile="$folder/password" --encoding=UTF8 --locale=C --no-sync >/dev/null
rm "$folder/password"
echo 'host all all all scram-sha-256' >"$folder/data/pg_hba.conf"
exec "$programs/postgres" -D "$folder/data" "$@"
"""


@dataclass(frozen=True, kw_only=True)
class ContainerServer:
    """A running throw-away server in a container."""

    version: str
    major: int
    image: str
    name: str
    port: int
    password: str = field(repr=False)

    def url(self, database: str = "postgres") -> str:
        """Return how to connect to one of its databases; it holds the password."""
        return _url(self.password, self.port, database)


@contextlib.contextmanager
def container(
    *,
    image: str,
    memory: str,
    cpus: float,
    timeout_seconds: float,
    settings: Mapping[str, str] | None = None,
    base: Path | None = None,
) -> Iterator[ContainerServer]:
    """Yield a running server that is gone, with its container, when the block ends.

    Its port is published on loopback alone and asks for a password that nobody else
    has. Containers that a killed run left behind are removed first. Fetching the image
    and starting end within about `timeout_seconds`.

    Raises:
        ClientToolError: the optional packages for containers are not installed.
        DatabaseError: no engine answers, the image is not to be had or holds no
            PostgreSQL, or the server does not start; its log is quoted.
    """
    deadline = time.monotonic() + timeout_seconds
    with _box(image) as box:
        workspace.sweep(KIND, base=base)
        with workspace.throwaway(KIND, base=base) as folder:
            _sweep(box, folder)
            box.fetch(deadline=deadline)
            password = secrets.token_urlsafe(24)
            with _removed(box, folder) as name:
                box.start(
                    name,
                    _SCRIPT,
                    _arguments(settings or {}),
                    environment={
                        "OPSKIT_PASSWORD": password,
                        "OPSKIT_SUPERUSER": SUPERUSER,
                    },
                    labels=_labels(folder),
                    port=PORT,
                    memory=memory,
                    cpus=cpus,
                )
                port = box.port(PORT)
                version = _await(box, _url(password, port), deadline)
                yield ContainerServer(
                    version=version,
                    major=int(re.split(r"\D", version, maxsplit=1)[0]),
                    image=image,
                    name=name,
                    port=port,
                    password=password,
                )


@contextlib.contextmanager
def _box(image: str) -> Iterator[Box]:
    try:
        from opskit.postgres.servers import engine as servers_engine
    except ImportError as error:
        raise ClientToolError(
            "containers cannot be used",
            said=str(error),
            hint="Install opskit with its container extra (opskit[container]), or "
            "choose another drill server.",
        ) from error
    with contextlib.closing(servers_engine.Box(image)) as box:
        yield box


def _labels(folder: Path) -> dict[str, str]:
    base = folder.parent.stat()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return {
        _FOLDER: folder.name,
        _BASE: f"{base.st_dev}:{base.st_ino}",
        _BOOT: boot,
    }


def _sweep(box: Box, folder: Path) -> None:
    """Remove the containers whose owner is dead.

    An owner has its folder for longer than its container; a restart of the machine,
    after which folders may be gone, has ended both.
    """
    ours = _labels(folder)
    for container in box.labelled(_BOOT):
        theirs = container.labels
        if theirs[_BOOT] != ours[_BOOT]:
            # One that runs belongs to another machine with a way to this engine.
            is_dead = container.has_run
        else:
            is_dead = (
                theirs.get(_BASE) == ours[_BASE]
                and not (folder.parent / theirs[_FOLDER]).exists()
            )
        if is_dead:
            box.remove(container.identifier)


@contextlib.contextmanager
def _removed(box: Box, folder: Path) -> Iterator[str]:
    """Yield a name for a container that is removed after the block, come what may."""
    name = f"opskit-drill-{folder.name.rpartition('-')[2]}"
    try:
        yield name
    except BaseException:
        # What went wrong first is what must be told.
        with contextlib.suppress(DatabaseError):
            box.remove(name)
        raise
    box.remove(name)


def _arguments(settings: Mapping[str, str]) -> list[str]:
    both = _SETTINGS | dict(settings)
    return [word for name, value in both.items() for word in ("-c", f"{name}={value}")]


def _url(password: str, port: int, database: str = "postgres") -> str:
    return throwaway_url(
        host="127.0.0.1",
        port=port,
        user=SUPERUSER,
        database=database,
        password=password,
    )


def _await(box: Box, url: str, deadline: float) -> str:
    """Return the server's version once it answers."""
    reason = "it did not answer in time"
    how_to_connect = arguments(
        parse(url) | {"connect_timeout": str(_CONNECT_SECONDS_MAX)}
    )
    while time.monotonic() < deadline:
        how = box.ended()
        if how is not None:
            reason = how
            break
        try:
            with psycopg.connect(**how_to_connect) as found:
                throwaway.add_what_it_can(found)
                version = found.info.parameter_status("server_version") or ""
                return version.split()[0]
        except psycopg.OperationalError as error:
            words = " ".join(str(error).split())
            reason = f"it did not answer in time: {words}"
            time.sleep(_POLL_SECONDS)
    raise DatabaseError(
        f"the server in the container did not start ({reason})",
        said=box.last_lines(),
        hint="The lines are from its log: the image must hold PostgreSQL, and the "
        "memory limit must leave it room.",
    )
