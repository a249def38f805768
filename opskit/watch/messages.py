"""Messages to people, by the services that apprise knows."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from opskit.config.watch import NotifySettings
from opskit.errors import ConfigurationError
from opskit.watch.deliveries import Delivery, NotDelivered

if TYPE_CHECKING:
    from apprise import Apprise

Tone = Literal["failure", "success", "info"]
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,15}(?=://)")


class Messages:
    """The services that people read.

    Raises:
        ConfigurationError: an address matches no service.
    """

    def __init__(self, settings: NotifySettings) -> None:
        self._seconds = settings.timeout.total_seconds()
        self._services = [
            _service(number, url.get_secret_value())
            for number, url in enumerate(settings.urls, 1)
        ]

    def deliveries(self, title: str, body: str, tone: Tone) -> Iterator[Delivery]:
        """Yield the message to every service."""
        for name, service in self._services:
            yield Delivery(
                receiver=name,
                send=_sender(service, title, body, tone),
                seconds=self._seconds,
            )


def _service(number: int, url: str) -> tuple[str, Apprise]:
    """Return what an address is called without its secrets, and its service."""
    from apprise import Apprise, AppriseAsset

    # Its words may hold addresses, and would come out beside our own logs.
    logging.getLogger("apprise").disabled = True
    # Without a limit of apprise's own, whose threads would keep the process from
    # ending; nothing is kept on disk.
    asset = AppriseAsset(
        app_id="opskit",
        app_desc="opskit",
        async_mode=False,
        http_redirects=False,
        service_timeout=0,
        storage_mode="memory",
    )
    scheme = match[0] if (match := _SCHEME.match(url)) else "no scheme"
    service = Apprise(asset=asset)
    if not service.add(url) or not len(service):
        raise ConfigurationError(
            f"number {number} of notify.urls ({scheme}) matches no service of apprise",
            hint="See docs/notifications.md for the form of an address, for instance "
            "mailto://user:password@example.org or ntfy://ntfy.sh/topic.",
        )
    return f"message {number} ({scheme})", service


def _sender(service: Apprise, title: str, body: str, tone: Tone) -> Callable[[], None]:
    def send() -> None:
        from apprise import NotifyFormat, NotifyType

        result = service.notify(
            body=body,
            title=title,
            notify_type=NotifyType(tone),
            body_format=NotifyFormat.TEXT,
        )
        if result.status:
            raise NotDelivered(f"apprise answers {result.status.name}", passing=False)

    return send
