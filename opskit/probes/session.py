"""Session: what one attempt of a probe asks the service with."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from urllib3 import HTTPConnectionPool, HTTPHeaderDict, connection_from_url
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from opskit import __version__
from opskit.probes.probe import Inconclusive, WrongAnswer

# Nothing that a probe sends destroys anything.
_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH")
_BODY_BYTES_MAX = 4 * 1024 * 1024
# What a balancer answers in the place of a service that it cannot reach.
BALANCERS = (502, 503, 504)


class Counter:
    """Counts requests; safe for threads."""

    def __init__(self) -> None:
        self._guard, self.number = threading.Lock(), 0

    def add(self) -> None:
        """Count one more."""
        with self._guard:
            self.number += 1


@dataclass(frozen=True, kw_only=True)
class Target:
    """The service: its address, its credentials as headers, how it is recognised.

    An answer that lacks the header `identity` is not the service's own.
    """

    url: str
    timeout_seconds: float
    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    identity: str = ""
    requests: Counter = field(default_factory=Counter)


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
        except ValueError:
            raise WrongAnswer(
                expected="a JSON body",
                observed=f"{self.status} with {len(self.body)} bytes that are no JSON",
            ) from None


class Session:
    """Asks the service over one connection, for as long as the service keeps it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._pool: HTTPConnectionPool = connection_from_url(target.url, maxsize=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.close()

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
    ) -> Answer:
        """Send one request, with the credential of that name; redirects stay answers.

        `own` are the balancers' statuses (502, 503, 504) that count as the service's.

        Raises:
            Inconclusive: no answer, or not one of the service.
        """
        if method not in _METHODS:
            raise ValueError(method)
        sent = {"User-Agent": f"opskit/{__version__} smoke"}
        if document is not None:
            body, sent["Content-Type"] = (
                json.dumps(document).encode(),
                "application/json",
            )
        sent |= self.target.keys[key] if key else {}
        sent |= headers or {}
        self.target.requests.add()
        began = time.monotonic()
        try:
            with self._pool.urlopen(
                method,
                path,
                body=body or None,
                headers=sent,
                retries=False,
                redirect=False,
                preload_content=False,
                timeout=Timeout(total=self.target.timeout_seconds),
            ) as response:
                content = response.read(_BODY_BYTES_MAX)
        except (HTTPError, OSError) as error:
            raise Inconclusive(f"{method} {path}: {type(error).__name__}") from error
        answer = Answer(
            status=response.status,
            headers=response.headers,
            body=content,
            seconds=time.monotonic() - began,
        )
        if not self._is_own(answer, own):
            raise Inconclusive(f"{method} {path}: {answer.status}, not of the service")
        return answer

    def get(self, path: str, *, key: str = "", **options: Any) -> Answer:
        """Like `request` with GET."""
        return self.request("GET", path, key=key, **options)

    def _is_own(self, answer: Answer, own: tuple[int, ...]) -> bool:
        if self.target.identity:
            return self.target.identity in answer.headers
        return answer.status not in BALANCERS or answer.status in own
