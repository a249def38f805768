"""Receivers: heartbeats, services that people read, and signed webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from opskit.config import Settings
from opskit.config.watch import NotifySettings, WebhookSettings, read_key
from opskit.errors import ConfigurationError
from opskit.ledger import LedgerEntry
from opskit.log import hide
from opskit.operations.outcome import Record
from opskit.watch.deliveries import Delivery, NotDelivered, request

if TYPE_CHECKING:
    from apprise import Apprise

OPERATION = "notify"  # in the ledger
_SERVICE = "message "
Signal = Literal["start", "success", "fail"]
Tone = Literal["failure", "warning", "success", "info"]
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,15}(?=://)")
_BASE64_MARK = "whsec_"


def last_notified(
    entries: Iterable[LedgerEntry], settings: NotifySettings
) -> dict[str, LedgerEntry]:
    """Return the last record of each receiver, by its name, if it is configured."""
    last = {
        str(each.details.get("receiver")): each
        for each in entries
        if each.operation == OPERATION
    }
    return {name: last[name] for name in _names(settings) if name in last}


def undelivered(
    entries: Iterable[LedgerEntry], service: str, settings: NotifySettings
) -> set[int]:
    """Return the numbers of the records about which a service was not notified.

    This includes what a service did not get that is not configured any more: its
    address was corrected, and its name with it.
    """
    others = set(_names(settings)) - {service}
    return {
        number
        for each in entries
        if each.operation == OPERATION
        and each.outcome == "failed"
        and (receiver := str(each.details.get("receiver"))).startswith(_SERVICE)
        and receiver not in others
        and isinstance(number := each.details.get("sequence"), int)
    }


def _names(settings: NotifySettings) -> list[str]:
    return [
        *(_service_name(*each) for each in enumerate(settings.urls, 1)),
        *(f"webhook {number}" for number, _ in enumerate(settings.webhooks, 1)),
        *(f"heartbeat {source}" for source in settings.heartbeats),
        *(f"drill heartbeat {source}" for source in settings.drill_heartbeats),
    ]


def _service_name(number: int, url: SecretStr) -> str:
    """Return what a service is called: nothing but the scheme of its address."""
    scheme = _SCHEME.match(url.get_secret_value())
    return f"{_SERVICE}{number} ({scheme[0] if scheme else 'no scheme'})"


def heartbeats(
    settings: Settings, record: Record, signal: Signal
) -> Iterator[Delivery]:
    """Yield the request about a backup or a drill, if its source has a heartbeat.

    A run that a scheduler interrupts is still due: nothing is said of its end.
    """
    notify = settings.notify
    addresses, name = {
        "backup": (notify.heartbeats, "heartbeat"),
        "restore-drill": (notify.drill_heartbeats, "drill heartbeat"),
    }.get(record.operation, ({}, ""))
    source = str(record.details.get("source", ""))
    is_due = record.ended == "interrupted" and "OPSKIT_SCHEDULED" in os.environ
    if source not in addresses or is_due:
        return
    url = _address(addresses[source].get_secret_value(), signal, record.run_id)
    timeout = notify.timeout.total_seconds()
    yield Delivery(
        receiver=f"{name} {source}",
        send=partial(request, "GET", url, timeout=timeout),
        seconds=timeout,
        repeated=signal != "start",  # what is about to run does not wait for long
    )


def _address(url: str, signal: Signal, run_id: str) -> str:
    """Return the address of a signal in the form of healthchecks.io.

    The id of the run has to be a UUID there: it is the last group of one.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + ("" if signal == "success" else f"/{signal}")
    rid = urlencode({"rid": uuid.UUID(int=int(run_id, 16))})
    query = f"{parts.query}&{rid}" if parts.query else rid
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that people read."""

    name: str
    apprise: Apprise
    seconds: float

    def message(self, title: str, body: str, tone: Tone) -> Delivery:
        """Return a message to it."""
        return Delivery(
            receiver=self.name,
            send=partial(_send, self.apprise, title, body, tone),
            seconds=self.seconds,
            repeated=True,
        )


def services(settings: NotifySettings) -> Iterator[Service]:
    """Yield every service of `notify.urls`.

    Raises:
        ConfigurationError: an address matches no service.
    """
    for number, url in enumerate(settings.urls, 1):
        name = _service_name(number, url)
        yield Service(
            name=name,
            apprise=_apprise(name, url),
            seconds=settings.timeout.total_seconds(),
        )


def _apprise(name: str, url: SecretStr) -> Apprise:
    from apprise import Apprise, AppriseAsset

    # apprise gets no limit of time: its threads would keep the process from ending.
    # It keeps nothing on disk.
    asset = AppriseAsset(
        app_id="opskit",
        app_desc="opskit",
        async_mode=False,
        http_redirects=False,
        service_timeout=0,
        storage_mode="memory",
    )
    service = Apprise(asset=asset)
    if not service.add(url.get_secret_value()) or not len(service):
        raise ConfigurationError(
            f"the address of {name} in notify.urls matches no service of apprise",
            hint="docs/notifications.md shows addresses; ntfys://ntfy.sh/TOPIC is one.",
        )
    return service


def _send(service: Apprise, title: str, body: str, tone: Tone) -> None:
    from apprise import AppriseResultStatus, NotifyFormat, NotifyType

    result = service.notify(
        body=body,
        title=title,
        notify_type=NotifyType(tone),
        body_format=NotifyFormat.TEXT,
    )
    if result.status:
        # Recipients that have it already would get it again.
        raise NotDelivered(
            f"apprise answers {result.status.name}",
            passing=result.status is not AppriseResultStatus.PARTIAL,
        )


def webhooks(settings: Settings, event: Mapping[str, Any]) -> Iterator[Delivery]:
    """Yield the requests that bring an event to every receiver."""
    timeout = settings.notify.timeout.total_seconds()
    body = json.dumps(event).encode()
    for number, receiver in enumerate(settings.notify.webhooks, 1):
        yield Delivery(
            receiver=f"webhook {number}",
            send=partial(_post, receiver, body, str(uuid.uuid4()), timeout),
            seconds=timeout,
            repeated=True,
        )


def _post(
    receiver: WebhookSettings, body: bytes, message_id: str, timeout: float
) -> None:
    try:
        secret = read_key("notify.webhooks.secret_file", receiver.secret_file)
    except ConfigurationError as error:
        raise NotDelivered(error.message, passing=False) from None
    hide(secret)
    headers = signed(body, secret, message_id=message_id, seconds=int(time.time()))
    request("POST", receiver.url, timeout=timeout, body=body, headers=headers)


def signed(
    body: bytes, secret: str, *, message_id: str, seconds: int
) -> dict[str, str]:
    """Return the headers of a message: its id, the time, and two forms of signature.

    `X-Signature` is of the body alone. That of Standard Webhooks covers the id and the
    time, so that an old message cannot be sent again.
    """
    content = f"{message_id}.{seconds}.".encode() + body
    signatures = [
        base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        for key in _keys(secret)
    ]
    plain = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-Request-ID": message_id,
        "X-Signature": f"sha256={plain}",
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }


def _keys(secret: str) -> list[bytes]:
    """Return the keys that it may mean: Standard Webhooks write keys in base64."""
    try:
        decoded = base64.b64decode(secret.removeprefix(_BASE64_MARK), validate=True)
    except ValueError:
        return [secret.encode()]
    marked = secret.startswith(_BASE64_MARK)
    return [decoded] if marked else [decoded, secret.encode()]
