"""Throw-away servers in containers, out of any image that holds PostgreSQL.

The only Docker module, imported where a container is asked for: `testcontainers`, and
the Docker client that it stands on, are an optional extra and slow to import.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import LogConfig
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from opskit import workspace
from opskit.errors import DatabaseError
from opskit.postgres.parameters import arguments, parse, throwaway_url
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.throwaway import PORT, SUPERUSER
from opskit.threads import Thread

_USER = "postgres"
_LOOPBACK = "127.0.0.1"
_REQUEST_SECONDS_MAX = 120
_REMOVE_SECONDS_MAX = 600
_LOG_BYTES_MAX = "10m"
_PROCESSES_MAX = 1024
# Parallel queries and index builds share memory there; Docker's own 64 MB are too few.
_SHARED_MEMORY = "512m"
_GONE, _BEING_REMOVED = 404, 409
_ENGINE_HINT = (
    "Start the container engine (Debian: systemctl start docker), or name its socket "
    "in DOCKER_HOST; this user must be allowed to use it."
)
_IMAGE_HINT = (
    "Check the image's name, and fetch it once by hand (docker pull); where no "
    "registry can be reached, bring it with docker load."
)
_START_HINT = (
    "The image must hold PostgreSQL, a shell and the user postgres; the limits must "
    "be ones that the engine can keep."
)


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
    has. What a killed run left is removed first. Fetching the image and starting end
    within about `timeout_seconds`. DatabaseError: no engine answers, the image is not
    to be had or holds no PostgreSQL, or the server does not start.
    """
    deadline = time.monotonic() + timeout_seconds
    with contextlib.closing(Box(image)) as box:
        workspace.sweep(KIND, base=base)
        with workspace.throwaway(KIND, base=base) as folder:
            _sweep(box, folder)
            box.fetch(deadline=deadline)
            password = secrets.token_urlsafe(24)
            with _removed(box, folder) as name:
                box.start(
                    name,
                    password,
                    _SETTINGS | dict(settings or {}),
                    labels=_labels(folder),
                    memory=memory,
                    cpus=cpus,
                )
                port = box.port()
                version = _await(box, _url(password, port), deadline)
                yield ContainerServer(
                    version=version,
                    major=int(re.split(r"\D", version, maxsplit=1)[0]),
                    image=image,
                    name=name,
                    port=port,
                    password=password,
                )


def _labels(folder: Path) -> dict[str, str]:
    base = folder.parent.stat()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    where = f"{base.st_dev}:{base.st_ino}"
    return {_FOLDER: folder.name, _BASE: where, _BOOT: boot}


def _sweep(box: Box, folder: Path) -> None:
    """Remove containers of dead owners: no folder is left, or the machine restarted."""
    ours = _labels(folder)
    for container in box.labelled(_BOOT):
        theirs = container["Labels"]
        if theirs[_BOOT] != ours[_BOOT]:
            # One that runs belongs to another machine with a way to this engine.
            is_dead = container["State"] == "exited"
        else:
            is_near = theirs.get(_BASE) == ours[_BASE]
            is_dead = is_near and not (folder.parent / theirs[_FOLDER]).exists()
        if is_dead:
            box.remove(container["Id"])


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


def _url(password: str, port: int, database: str = "postgres") -> str:
    who = {"user": SUPERUSER, "password": password}
    return throwaway_url(host=_LOOPBACK, port=port, database=database, **who)


def _await(box: Box, url: str, deadline: float) -> str:
    """Return the server's version once it answers."""
    reason = "it did not answer in time"
    how_to_connect = arguments(
        parse(url) | {"connect_timeout": str(_CONNECT_SECONDS_MAX)}
    )
    while time.monotonic() < deadline:
        if how := box.ended():
            reason = how
            break
        try:
            with psycopg.connect(**how_to_connect) as found:
                throwaway.add_what_it_can(found)
                version = found.info.parameter_status("server_version") or ""
                return version.split()[0]
        except psycopg.OperationalError as error:
            reason = f"it did not answer in time: {' '.join(str(error).split())}"
            time.sleep(_POLL_SECONDS)
    raise DatabaseError(
        f"the server in the container did not start ({reason})",
        said=box.last_lines(),
        hint="The lines are from its log: the image must hold PostgreSQL, and the "
        "memory limit must leave it room.",
    )


class Box:
    """A container, its published port on loopback alone."""

    def __init__(self, image: str) -> None:
        """Reach the engine on this machine, as Docker would; or DatabaseError."""
        # Its reaper is a container too, whose image may be out of reach. What a killed
        # run leaves behind is found by its labels.
        testcontainers_config.ryuk_disabled = True
        with _translated("the container engine does not answer", _ENGINE_HINT):
            self._container = DockerContainer(
                image, docker_client_kw={"timeout": _REQUEST_SECONDS_MAX}
            )
            self._client = self._container.get_docker_client().client
        address = urlsplit(self._client.api.base_url)
        if address.hostname not in ("localhost", _LOOPBACK, "::1"):
            self.close()
            raise DatabaseError(
                "the container engine is on another machine",
                hint="Its servers are published on loopback only, so that it must run "
                "on this one: unset DOCKER_HOST, or let it name a socket.",
            )

    def fetch(self, *, deadline: float) -> None:
        """Get the image from its registry where it is not here; raise DatabaseError."""
        image = self._container.image
        with _translated(f"the image {image} could not be looked up", _IMAGE_HINT):
            try:
                self._client.images.get(image)
            except ImageNotFound:
                pass
            else:
                return
        failures: list[str] = []
        # The client waits for a registry without a bound, and cannot be interrupted.
        fetching = Thread(self._pull, image, failures, name="image")
        fetching.join(max(0.0, deadline - time.monotonic()))
        if fetching.is_alive():
            raise DatabaseError(
                f"the image {image} did not arrive in time", hint=_IMAGE_HINT
            )
        if failures:
            raise DatabaseError(
                f"the image {image} is not here and could not be fetched",
                said=failures[0],
                hint=_IMAGE_HINT,
            )

    def _pull(self, image: str, failures: list[str]) -> None:
        repository, tag = parse_repository_tag(image)
        try:
            events = self._client.api.pull(repository, tag, stream=True, decode=True)
            failures += [event["error"] for event in events if "error" in event]
        except (DockerException, RequestException) as error:
            failures.append(_words(error))

    def start(
        self,
        name: str,
        password: str,
        settings: Mapping[str, str],
        *,
        labels: Mapping[str, str],
        memory: str,
        cpus: float,
    ) -> None:
        """Start the script as `postgres`, in place of the image's own entry point."""
        box = self._container.with_name(name)
        box.with_envs(OPSKIT_PASSWORD=password, OPSKIT_SUPERUSER=SUPERUSER)
        options = (("-c", f"{key}={each}") for key, each in settings.items())
        box.with_command([word for option in options for word in option])
        # Docker takes an address with the port; the library's types do not say so.
        box.ports[str(PORT)] = (_LOOPBACK, None)  # type: ignore[assignment]
        with _translated("the container could not be started", _START_HINT):
            # The engine refuses more than there are.
            cores = min(cpus, self._client.info()["NCPU"])
            box.with_kwargs(
                entrypoint=["/bin/sh", "-c", _SCRIPT, "opskit"],
                user=_USER,
                working_dir="/",
                network="bridge",
                labels=dict(labels),
                mem_limit=memory,
                memswap_limit=memory,
                nano_cpus=round(cores * 1_000_000_000),
                pids_limit=_PROCESSES_MAX,
                shm_size=_SHARED_MEMORY,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                # The engine's default could be a journal that outlives the container.
                log_config=LogConfig(
                    type="json-file", config={"max-size": _LOG_BYTES_MAX}
                ),
            ).start()

    def port(self) -> int:
        """Return the published port; raise DatabaseError if the container ended."""
        with _translated("the container cannot be asked for its port", _ENGINE_HINT):
            try:
                client = self._container.get_docker_client()
                return int(client.port(self._container.get_container_id(), PORT))
            except ConnectionError:
                raise DatabaseError(
                    "the container ended as soon as it began",
                    said=self.last_lines(),
                    hint=_START_HINT,
                ) from None

    def ended(self) -> str | None:
        """Return how the container ended, or None while it runs."""
        with _translated("the container cannot be looked up", _ENGINE_HINT):
            box = self._container.get_wrapped_container()
            box.reload()
            state = box.attrs["State"]
        if state["Running"]:
            return None
        why = ", having reached its memory limit" if state["OOMKilled"] else ""
        return f"ended with code {state['ExitCode']}{why}"

    def last_lines(self) -> str:
        """Return the end of what the container wrote, in one line."""
        with _translated("the container's log cannot be read", _ENGINE_HINT):
            log = self._container.get_wrapped_container().logs(tail=5)
        return " / ".join(log.decode("utf-8", "replace").strip().splitlines())

    def remove(self, name: str) -> None:
        """Remove a container and its volumes, if it is there; or DatabaseError.

        Its name was chosen before, so that one of an interrupted start goes as well.
        """
        self._client.api.timeout = _REMOVE_SECONDS_MAX
        with _translated(
            f"the container {name} could not be removed",
            f"It holds a copy of the data: docker rm --force --volumes {name}",
        ):
            try:
                self._client.api.remove_container(name, v=True, force=True)
            except APIError as error:
                if error.status_code not in (_GONE, _BEING_REMOVED):
                    raise

    def labelled(self, label: str) -> list[dict[str, Any]]:
        """Return all containers that have a label, as the engine describes them."""
        with _translated("the containers could not be listed", _ENGINE_HINT):
            find = self._client.api.containers
            return list(find(all=True, filters={"label": label}))

    def close(self) -> None:
        """Let go of the engine."""
        self._client.close()


@contextlib.contextmanager
def _translated(failed: str, hint: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, RequestException) as error:
        raise DatabaseError(failed, said=_words(error), hint=hint) from error


def _words(error: Exception) -> str:
    explanation = error.explanation if isinstance(error, APIError) else None
    return str(explanation or error).strip().replace("\n", " / ")
