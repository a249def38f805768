"""Deliveries to receivers: by HTTP or otherwise, each bounded in time."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from opskit import __version__
from opskit.threads import Thread

if TYPE_CHECKING:
    from urllib3 import PoolManager

# Before the second and the third attempt.
_PAUSES_SECONDS = (1.0, 4.0)
_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)
_BUSY = 429


class NotDelivered(Exception):
    """A receiver did not take a message; says why, without the receiver's address."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message for one receiver, by its name and never by its address.

    `send` raises NotDelivered, and takes at most so many seconds. It is `repeated` up
    to twice, while what kept it from success may pass.
    """

    receiver: str
    send: Callable[[], object]
    seconds: float
    repeated: bool = False

    @property
    def seconds_max(self) -> float:
        """How long all attempts may take."""
        pauses = _PAUSES_SECONDS if self.repeated else ()
        return self.seconds * (len(pauses) + 1) + sum(pauses)

    def make(self) -> None:
        """Send the message.

        Raises:
            NotDelivered: no attempt succeeded.
        """
        for pause in _PAUSES_SECONDS if self.repeated else ():
            try:
                self.send()
                return
            except NotDelivered as error:
                if not error.passing:
                    raise
            time.sleep(pause)
        self.send()


def deliver(deliveries: Sequence[Delivery]) -> list[str]:
    """Deliver all at once; return for each why it failed, or an empty text."""
    reasons = [f"no answer within {each.seconds_max:.0f} s" for each in deliveries]

    def attempt(number: int) -> None:
        try:
            deliveries[number].make()
            reasons[number] = ""
        except NotDelivered as error:
            reasons[number] = str(error)
        except Exception as error:  # noqa: BLE001 - a receiver's library may raise any
            # Its message may contain the address.
            reasons[number] = f"an unexpected error: {type(error).__name__}"

    began = time.monotonic()
    threads = [
        Thread(attempt, number, name=f"to {each.receiver}")
        for number, each in enumerate(deliveries)
    ]
    for thread, each in zip(threads, deliveries, strict=True):
        thread.join(max(0.0, began + each.seconds_max - time.monotonic()))
    return list(reasons)


def request(
    method: str,
    url: str,
    *,
    timeout: float,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    answer_bytes: int = 0,
) -> bytes:
    """Send one request; read its status, and no more of the answer than so many bytes.

    Redirects are not followed. A user and a password in the address are sent as HTTP
    basic authentication.

    Raises:
        NotDelivered: there is no answer, or not one of success.
    """
    from urllib3.exceptions import HTTPError
    from urllib3.util import Timeout, make_headers, parse_url

    try:
        address = parse_url(url)
        own_headers = make_headers(
            user_agent=f"opskit/{__version__}",
            basic_auth=_plain(address.auth),
            basic_auth_encoding="utf-8",
        )
        response = pool(address.scheme or "", address.host or "").request(
            method,
            url,
            body=body or None,
            headers=own_headers | dict(headers or {}),
            timeout=Timeout(total=timeout),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        answer: bytes = response.read(answer_bytes) if answer_bytes else b""
        response.close()
    except (HTTPError, OSError, ValueError) as error:
        raise NotDelivered(reason_of(error, timeout), passing=True) from None
    if response.status in _REDIRECTS:
        raise NotDelivered(
            f"it answered {response.status}, and redirects are not followed",
            passing=False,
        )
    if response.status not in _SUCCESS:
        raise NotDelivered(
            f"it answered {response.status}",
            passing=response.status >= 500 or response.status == _BUSY,
        )
    return answer


def pool(scheme: str, host: str) -> PoolManager:
    """Return connections, through a proxy where the environment names one."""
    from urllib3 import PoolManager, ProxyManager
    from urllib3.util import make_headers, parse_url

    proxy = urllib.request.getproxies().get(scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return PoolManager()
    return ProxyManager(
        proxy,
        proxy_headers=make_headers(
            proxy_basic_auth=_plain(parse_url(proxy).auth),
            proxy_basic_auth_encoding="utf-8",
        ),
    )


def _plain(auth: str | None) -> str | None:
    """Return the user and the password of an address as they are meant."""
    return None if auth is None else unquote(auth)


def reason_of(error: BaseException, timeout: float) -> str:
    """Return why a receiver could not be reached; the errors' own words hold URLs."""
    from urllib3.exceptions import TimeoutError as Late

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"it cannot be reached: {cause.strerror}"
        if isinstance(cause, TimeoutError):
            return f"no answer within {timeout:.0f} s"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, Late):  # none of the time was left to read the answer
        return f"no answer within {timeout:.0f} s"
    return f"it cannot be reached ({type(error).__name__})"
