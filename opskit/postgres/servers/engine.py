"""One container from its image's arrival to its removal: the only Docker module.

It is imported only where a container is asked for: `testcontainers`, and the Docker
client that it stands on, are an optional extra and slow to import.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import LogConfig
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from opskit.errors import DatabaseError
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


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A container that some run has started."""

    identifier: str
    labels: Mapping[str, str]
    has_run: bool


class Box:
    """A container, its published port on loopback alone."""

    def __init__(self, image: str) -> None:
        """Reach the engine that DOCKER_HOST or Docker's own context names.

        Raises:
            DatabaseError: none answers, or it is on another machine.
        """
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
        """Have the image at hand, from a registry where it is not.

        Raises:
            DatabaseError: there is none, or it does not come in time.
        """
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
        script: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        labels: Mapping[str, str],
        port: int,
        memory: str,
        cpus: float,
    ) -> None:
        """Start a shell script in the image as `postgres`, in place of its own entry.

        Raises:
            DatabaseError: the engine refuses.
        """
        box = self._container.with_name(name).with_envs(**environment)
        box.with_command(list(arguments))
        # Docker takes an address with the port; the library's types do not say so.
        box.ports[str(port)] = (_LOOPBACK, None)  # type: ignore[assignment]
        with _translated("the container could not be started", _START_HINT):
            # The engine refuses more than there are.
            cores = min(cpus, self._client.info()["NCPU"])
            box.with_kwargs(
                entrypoint=["/bin/sh", "-c", script, "opskit"],
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

    def port(self, port: int) -> int:
        """Return where a port of the container is published.

        Raises:
            DatabaseError: it has ended already.
        """
        with _translated("the container cannot be asked for its port", _ENGINE_HINT):
            try:
                client = self._container.get_docker_client()
                return int(client.port(self._container.get_container_id(), port))
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

    def last_lines(self, count: int = 5) -> str:
        """Return the end of what the container wrote, in one line."""
        with _translated("the container's log cannot be read", _ENGINE_HINT):
            log = self._container.get_wrapped_container().logs(tail=count)
        return " / ".join(log.decode("utf-8", "replace").strip().splitlines())

    def remove(self, name: str) -> None:
        """Remove a container, if it is there, with its volumes.

        By a name that was chosen before, so that one which an interrupted start has
        not heard of goes as well.

        Raises:
            DatabaseError: it could not be removed.
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

    def labelled(self, label: str) -> list[Labelled]:
        """Return all containers that bear a label."""
        with _translated("the containers could not be listed", _ENGINE_HINT):
            containers = self._client.api.containers(all=True, filters={"label": label})
        return [
            Labelled(
                identifier=each["Id"],
                labels=each["Labels"],
                has_run=each["State"] == "exited",
            )
            for each in containers
        ]

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
