"""The service of `examples/service`, run as a process with PostgreSQL and Redis."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import psycopg
import urllib3

from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from opskit.postgres.servers.throwaway import Server
from tests import processes
from tests.ports import free_port
from tests.unit import stock

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "service"
JWT_SECRET = "secret-of-the-tests-which-signs-json-web-tokens"
HOOK_SECRET = "secret-of-the-tests-which-signs-hooks"
WEBHOOK_SECRET = "secret-of-the-tests-which-signs-webhooks"
# Every account has a key; `other` is a second writer, `burst` has a limit of its own.
ACCOUNTS = {
    "reader": ["--role", "reader"],
    "writer": ["--role", "writer"],
    "other": ["--role", "writer"],
    "admin": ["--role", "admin"],
    "burst": ["--role", "reader", "--rate-limit", "20/10 seconds"],
}
# What `examples/service/opskit.toml` expects beside the service's defaults.
STRICT: dict[str, Any] = {
    "allowed_origins": '["https://app.example"]',
    "https": "true",
    "diagnostics": "true",
    "body_seconds": "2",
    "request_seconds": "4",
    "concurrent_requests_max": "40",
    "webhook_secret": WEBHOOK_SECRET,
}
# What is to succeed has time on a busy machine; a test that tries a limit sets it.
_PATIENT = {"redis_seconds": "60", "body_seconds": "60", "request_seconds": "120"}
_UNHURRIED = """
import service.database
from service.__main__ import main

service.database._WAIT_SECONDS = 600.0
service.database._CONNECT["options"] = "-c timezone=UTC"
main()
"""
_TEMPLATE = "service_template"
_SECONDS_MAX = 60
_ADDRESS = re.compile(r"running on (http://[\d.]+:(\d+))")
_AWAY = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {text}"


class Process(Protocol):
    """A process, as the module subprocess has it."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Return how it ended, or None."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal."""

    def kill(self) -> None:
        """End it at once."""


# Starts the service in a folder, on a port, with an environment and a file for its log.
Launch = Callable[[Path, int, Mapping[str, str], Path], Process]


def launch(
    folder: Path,
    port: int,
    environment: Mapping[str, str],
    log: Path,
    program: Sequence[str] = ("-m", "service"),
) -> Process:
    """Start the service as its users do, in a new interpreter."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *program, "serve", "--port", str(port)],
            cwd=folder,
            env=dict(environment),
            stderr=output,
        )


def launch_unhurried(
    folder: Path, port: int, environment: Mapping[str, str], log: Path
) -> Process:
    """Start a service that waits for locks, and for connections, for minutes."""
    return launch(folder, port, environment, log, ("-c", _UNHURRIED))


@dataclass
class Redis:
    """Debian's Redis on a unix socket; it can be stopped and started again."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def url(self, number: int) -> str:
        """Where clients find one of its databases."""
        return f"unix://{self.folder}/redis.sock?db={number}"

    @property
    def command(self) -> list[str]:
        """How it is started."""
        options = ["--port", "0", "--unixsocket", f"{self.folder}/redis.sock"]
        options += ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        return [stock.program("redis-server"), *options, "--databases", "1000"]

    def start(self) -> None:
        """Start it, and wait until it listens."""
        socket = self.folder / "redis.sock"
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        _await(socket.exists, "Redis does not listen", self.process)

    def stop(self) -> None:
        """End it; what it counted is gone."""
        _end(self.process)
        self.process = None
        (self.folder / "redis.sock").unlink(missing_ok=True)


@dataclass
class Service:
    """A process of the service, with a database of its own."""

    folder: Path
    environment: Mapping[str, str]
    keys: Mapping[str, str]
    server: Server
    database: str
    launch: Launch
    port: int = 0
    # Where hooks may lead, and opskit listens.
    hook_port: int = 0
    process: Process | None = None
    _starts: int = 0

    @property
    def url(self) -> str:
        """Where it answers; the same after it was started again."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        """How to connect to its database."""
        return self.server.url(self.database)

    @property
    def log(self) -> Path:
        """The log of its latest process."""
        return self.folder / f"log-{self._starts}.jsonl"

    @property
    def logged(self) -> list[dict[str, object]]:
        """The lines of that log; each is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def ask(
        self,
        method: str,
        path: str,
        key: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        document: object = None,
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Send one request, with the key of an account if one is named."""
        sent = {"Content-Type": "application/json"} | dict(headers or {})
        if key:
            sent["X-API-Key"] = self.keys[key]
        if document is not None:
            body = json.dumps(document).encode()
        return urllib3.request(
            method,
            self.url + path,
            headers=sent,
            body=body,
            retries=False,
            timeout=_SECONDS_MAX,
        )

    @property
    def secrets(self) -> dict[str, str]:
        """What `opskit.toml` expects in files, by their names."""
        return {
            **self.keys,
            "jwt-secret": JWT_SECRET,
            "webhook-secret": WEBHOOK_SECRET,
            "hook-secret": HOOK_SECRET,
        }

    def configuration(self, folder: Path) -> Path:
        """Write its `opskit.toml`, and the files that it names, into a folder.

        The hook that it expects is registered; a probe shows it if that fails.
        """
        hook = {"url": f"http://127.0.0.1:{self.hook_port}/", "secret": HOOK_SECRET}
        self.ask("POST", "/api/hooks", "admin", document=hook)
        for name, secret in self.secrets.items():
            path = folder / name
            path.write_text(secret)
            path.chmod(0o600)
        text = (FOLDER / "opskit.toml").read_text(encoding="utf-8")
        for there, here in (
            ("http://127.0.0.1:8000", self.url),
            ("/etc/service/keys", str(folder)),
            ("/var/log/service/service.jsonl", str(self.log)),
            ("/var/backups/service", str(self.folder)),
            ("/var/lib/service", str(folder)),
            ("127.0.0.1:8322", f"127.0.0.1:{self.hook_port}"),
        ):
            text = text.replace(there, here)
        path = folder / "opskit.toml"
        path.write_text(text)
        return path

    def raw(self, *pieces: bytes) -> bytes:
        """Send bytes on one connection, and return all until it is closed."""
        with socket.create_connection(("127.0.0.1", self.port), 60) as connection:
            for each in pieces:
                connection.sendall(each)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def connected(self) -> psycopg.Connection:
        """Return a connection to its database, which the caller closes."""
        return psycopg.connect(self.database_url)

    def command(self, *arguments: str) -> str:
        """Run `python -m service` with arguments, and return what it printed."""
        return _run(self.environment, *arguments)

    def start(self, *, until_ready: bool = True) -> None:
        """Start it, and wait until it listens, or is ready."""
        self._starts += 1
        self.log.touch()
        self.process = self.launch(self.folder, self.port, self.environment, self.log)
        _await(
            self._listens, f"the service does not listen, see {self.log}", self.process
        )
        if until_ready:
            _await(self.is_ready, f"it is not ready, see {self.log}", self.process)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        _end(self.process)
        self.process = None

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(_SECONDS_MAX)
        self.process = None

    @contextlib.contextmanager
    def second(
        self, *, source: Path | None = None, **settings: str
    ) -> Iterator[Service]:
        """Yield another process with the same settings but these, database and Redis."""
        given = {f"SERVICE_{name.upper()}": value for name, value in settings.items()}
        given |= {"PYTHONPATH": str(source)} if source else {}
        other = replace(
            self,
            folder=Path(tempfile.mkdtemp(dir=self.folder)),
            environment={**self.environment, **given},
            port=free_port(),
            process=None,
        )
        try:
            other.start()
            yield other
        finally:
            other.stop()

    def is_ready(self) -> bool:
        """Say whether it calls itself ready."""
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            answer = urllib3.request("GET", f"{self.url}/ready", retries=False)
            return answer.status == 200
        return False

    @contextlib.contextmanager
    def database_away(self) -> Iterator[None]:
        """Refuse it its database, and end its connections, for a block."""
        name = quoted(self.database)
        with connect(self.server.url(), purpose="test") as connection:
            refuse = f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"
            database.run_script(connection, refuse)  # it must not come back meanwhile
            database.run_script(connection, _AWAY.format(text=f"'{self.database}'"))
            try:
                yield
            finally:
                back = f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"
                database.run_script(connection, back)

    def _listens(self) -> bool:
        found = _ADDRESS.search(self.log.read_text())
        if found is not None:
            self.port = int(found[2])
        return found is not None


@dataclass
class Services:
    """Starts services, each with a database of its own, on one server."""

    folder: Path
    server: Server
    redis: Redis
    _keys: dict[str, str] = field(default_factory=dict)
    _number: int = 0

    @contextlib.contextmanager
    def running(
        self,
        *,
        source: Path = FOLDER,
        launch: Launch = processes.launch,
        **settings: str,
    ) -> Iterator[Service]:
        """Yield a running service; settings are `rate_limit="10/second"` and so on."""
        if not self._keys:
            self._make_template()
        self._number += 1
        name = f"service_{self._number}"
        self._administrate(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        folder = self.folder / name
        folder.mkdir()
        port = free_port()
        origins = {"hook_origins": f'["http://127.0.0.1:{port}"]'}
        service = Service(
            folder=folder,
            hook_port=port,
            port=free_port(),
            environment=self._environment(name, origins | settings, source),
            keys=self._keys,
            server=self.server,
            database=name,
            launch=launch,
        )
        try:
            service.start()
            yield service
        finally:
            service.stop()
            self._administrate(f"DROP DATABASE {name} WITH (FORCE)")

    def _make_template(self) -> None:
        self._administrate(f"CREATE DATABASE {_TEMPLATE}")
        environment = self._environment(_TEMPLATE, {})
        _run(environment, "migrate")
        for name, options in ACCOUNTS.items():
            arguments = ["create-key", name, *options]
            code, key, errors = processes.run(self.folder, arguments, environment)
            assert code == 0, errors
            self._keys[name] = key.strip()

    def _environment(
        self, name: str, settings: Mapping[str, str], source: Path = FOLDER
    ) -> dict[str, str]:
        chosen = {
            "database_url": self.server.url(name),
            "redis_url": self.redis.url(self._number),
            "jwt_secret": JWT_SECRET,
            **_PATIENT,
            **settings,
        }
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(source),
            **{f"SERVICE_{name.upper()}": value for name, value in chosen.items()},
        }

    def _administrate(self, script: str) -> None:
        with connect(self.server.url(), purpose="test") as connection:
            database.run_script(connection, script)


@contextlib.contextmanager
def redis() -> Iterator[Redis]:
    """Yield a running Redis, or skip the test where there is none."""
    stock.program("redis-server")
    # In a folder with a short name, since the address of a socket is short.
    with tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp") as folder:
        server = Redis(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _run(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env=dict(environment),
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _await(is_so: Callable[[], bool], otherwise: str, process: Process) -> None:
    deadline = time.monotonic() + _SECONDS_MAX
    while not is_so():
        assert process.poll() is None, f"{otherwise}: it ended with {process.poll()}"
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def _end(process: Process | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
