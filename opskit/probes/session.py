"""Session: what one attempt of a probe asks the service with."""

from __future__ import annotations

import contextlib
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_connection
from socket import socket as Socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPHeaderDict
from urllib3.util import Timeout
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from opskit import __version__
from opskit.errors import ConfigurationError
from opskit.probes.channels import SWITCHED, Stream, WebSocket
from opskit.probes.connection import Handle, Line
from opskit.probes.probe import Inconclusive, RateLimited, WrongAnswer

# Nothing that a probe sends destroys anything.
_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH")
_BODY_BYTES_MAX = 4 * 1024 * 1024
# What a balancer answers in the place of a service that it cannot reach.
BALANCERS = (502, 503, 504)
_TOO_MANY = 429
_USER_AGENT = f"opskit/{__version__} smoke"


class Counter:
    """Counts requests; safe for threads."""

    def __init__(self) -> None:
        self._guard, self.number = threading.Lock(), 0

    def add(self) -> None:
        """Count one more."""
        with self._guard:
            self.number += 1


class Once:
    """Keeps what one probe found, for all of them; safe for threads."""

    def __init__(self) -> None:
        self._guard, self._known = threading.Lock(), dict[str, str]()

    def get(self, name: str, find: Callable[[], str]) -> str:
        """Return what is known by this name, or what `find` returns now."""
        with self._guard:
            if name not in self._known:
                self._known[name] = find()
            return self._known[name]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The service: its address, its credentials as headers, how it is recognised.

    An answer that lacks the header `identity` is not the service's own. Authorities in
    `ca_file` are trusted instead of this host's.
    """

    url: str
    timeout_seconds: float
    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    identity: str = ""
    ca_file: Path | None = None
    requests: Counter = field(default_factory=Counter)
    # How often wrong answers did not count, as another version answers, too.
    doubts: Counter = field(default_factory=Counter)
    once: Once = field(default_factory=Once)
    # The connections that are open, and whether the run ends early.
    handles: set[Handle] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    def credential(self, key: str) -> Mapping[str, str]:
        """Return the headers of a credential; none for the empty name.

        Raises:
            ConfigurationError: it is not configured.
        """
        if not key:
            return {}
        if key not in self.keys:
            raise ConfigurationError(
                f"a probe uses the key {key}, and [smoke.keys.{key}] is missing",
                hint=f"Add [smoke.keys.{key}] with file, or name another key.",
            )
        return self.keys[key]

    def stop(self) -> None:
        """End the run: cut what is being answered, and send nothing more."""
        self.stopped.set()
        for each in list(self.handles):
            each.end()

    def stop_if_interrupted(self) -> None:
        """End the run if what is being handled is an interrupt, and not an error."""
        if isinstance(sys.exception(), KeyboardInterrupt):
            self.stop()

    def count(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            Inconclusive: the run ends, and nothing more is sent.
        """
        if self.stopped.is_set():
            raise Inconclusive("the run was ended")
        self.requests.add()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the service answered; header names are in any case, and may repeat."""

    status: int
    headers: HTTPHeaderDict
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Return the body.

        Raises:
            WrongAnswer: it is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise WrongAnswer(
                expected="a JSON body",
                observed=f"{self.status} with {len(self.body)} bytes that are no JSON",
            ) from None


class Session:
    """Asks the service over one connection, for as long as the service keeps it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        address = urlsplit(target.url)
        self._line, self._base = Line(address, target.ca_file), address.path.rstrip("/")
        target.handles.add(self._line.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.target.handles.discard(self._line.handle)
        self._line.close()

    def below(self, path: str) -> str:
        """Return a path that the service names, without that of its own address."""
        is_whole = self._base and path.startswith(f"{self._base}/")
        return path.removeprefix(self._base) if is_whole else path

    @property
    def connections(self) -> int:
        """How many connections for requests were opened; 1 if the first still is."""
        return self._line.opened

    def request(
        self,
        method: str,
        path: str,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        document: object = None,
        own: tuple[int, ...] = (),
        identified: bool = True,
    ) -> Answer:
        """Send one request, with the credential of that name; redirects stay answers.

        `own` are the statuses among 429 and the balancers' (502, 503, 504) that answer
        this request: a rate limit that other requests used up is no answer to it. An
        answer that need not be `identified` may lack the header `identity`.

        Raises:
            Inconclusive: no answer, or not one of the service.
        """
        sent = dict(headers or {})
        if document is not None:
            body = json.dumps(document).encode()
            sent = {"Content-Type": "application/json"} | sent
        began, asked = time.monotonic(), f"{method} {path}"
        with (
            self._line.cut_after(self.target.timeout_seconds, asked=asked),
            self._asked(method, path, key, sent, body) as response,
        ):
            content = response.read(_BODY_BYTES_MAX)
        seconds = time.monotonic() - began
        self.require_own(asked, response.status, response.headers, own, identified)
        return Answer(
            status=response.status,
            headers=response.headers,
            body=content,
            seconds=seconds,
        )

    def get(self, path: str, *, key: str = "", **options: Any) -> Answer:
        """Like `request` with GET."""
        return self.request("GET", path, key=key, **options)

    @contextlib.contextmanager
    def stream(
        self, path: str, *, key: str = "", headers: Mapping[str, str] | None = None
    ) -> Iterator[Stream]:
        """Ask for an event stream, which ends with the block.

        Raises:
            Inconclusive: no answer, or not one of the service.
        """
        sent = {"Accept": "text/event-stream"} | dict(headers or {})
        seconds = self.target.timeout_seconds
        with contextlib.ExitStack() as stack:
            with self._line.cut_after(seconds, asked=f"GET {path}"):
                response = stack.enter_context(self._asked("GET", path, key, sent, b""))
            self.require_own(f"GET {path}", response.status, response.headers, ())
            stack.callback(response.close)
            yield Stream(response, seconds=seconds)

    @contextlib.contextmanager
    def websocket(
        self, path: str, *, key: str = "", headers: Mapping[str, str] | None = None
    ) -> Iterator[WebSocket]:
        """Open a WebSocket, which is closed with the block.

        Raises:
            Inconclusive: no answer, or not one of the service.
            WrongAnswer: the service redirects it.
        """
        seconds = self.target.timeout_seconds
        # What comes after the ? may be a credential.
        asked = f"WebSocket {path.partition('?')[0]}"
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(
                    connect(
                        "ws" + self.target.url.removeprefix("http").rstrip("/") + path,
                        # One of our own keeps it from following redirects, which
                        # would take the key elsewhere.
                        sock=stack.enter_context(self.socket()),
                        ssl=self._trust(),
                        additional_headers=self._headers(key, headers),
                        user_agent_header=_USER_AGENT,
                        open_timeout=seconds,
                        close_timeout=seconds,
                        ping_interval=None,
                    )
                )
            except InvalidStatus as error:
                response = error.response
                found = HTTPHeaderDict(response.headers.raw_items())
                self.require_own(asked, response.status_code, found)
                connection, status = None, response.status_code
            except (WebSocketException, OSError, EOFError) as error:
                raise Inconclusive(f"{asked}: {type(error).__name__}") from error
            except ValueError:
                raise WrongAnswer(
                    expected="a WebSocket", observed="a redirect"
                ) from None
            else:
                status = SWITCHED
            yield WebSocket(status, connection, seconds=seconds)

    @contextlib.contextmanager
    def socket(self) -> Iterator[Socket]:
        """Yield a connection to the service, on which nothing is sent yet.

        Raises:
            Inconclusive: the run ends.
            OSError: there is no connection.
        """
        address = urlsplit(self.target.url)
        port = address.port or {"http": 80, "https": 443}[address.scheme]
        handle = Handle()
        self.target.handles.add(handle)
        try:
            self.target.count()
            with create_connection(
                (address.hostname, port), self.target.timeout_seconds
            ) as connection:
                yield handle.take(connection)
        finally:
            self.target.handles.discard(handle)
            handle.close()

    def _trust(self) -> ssl.SSLContext | None:
        if self.target.url.startswith("https:"):
            return ssl.create_default_context(cafile=self.target.ca_file)
        return None

    def _headers(self, key: str, more: Mapping[str, str] | None) -> dict[str, str]:
        return {**self.target.credential(key), **(more or {})}

    def _asked(
        self, method: str, path: str, key: str, headers: dict[str, str], body: bytes
    ) -> BaseHTTPResponse:
        if method not in _METHODS:
            raise ValueError(method)
        self.target.count()
        return self._line.pool.urlopen(
            method,
            self._base + path,
            body=body or None,
            headers={"User-Agent": _USER_AGENT} | self._headers(key, headers),
            retries=False,
            redirect=False,
            preload_content=False,
            timeout=Timeout(total=self.target.timeout_seconds),
        )

    def require_own(
        self,
        asked: str,
        status: int,
        headers: HTTPHeaderDict,
        own: tuple[int, ...] = (),
        identified: bool = True,
    ) -> None:
        """Raise Inconclusive unless this is the service's answer to what was asked."""
        if self.target.identity and identified:
            is_own = self.target.identity in headers
        else:
            is_own = status not in BALANCERS or status in own
        if not is_own:
            raise Inconclusive(f"{asked}: {status}, not of the service")
        if status == _TOO_MANY and status not in own:
            raise RateLimited(f"{asked}: {status}, refused by a rate limit")
