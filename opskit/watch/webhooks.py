"""Webhooks: signed messages about every operation, for programs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from opskit.config import Settings
from opskit.config.watch import WebhookSettings, read_key
from opskit.errors import ConfigurationError
from opskit.log import hide
from opskit.watch.deliveries import (
    Delivery,
    NotDelivered,
    repeated,
    repeated_seconds,
    request,
)

_PREFIX = "whsec_"


def webhooks(settings: Settings, event: Mapping[str, Any]) -> Iterator[Delivery]:
    """Yield the requests that bring an event to every receiver."""
    timeout = settings.notify.timeout.total_seconds()
    for number, receiver in enumerate(settings.notify.webhooks, 1):
        yield Delivery(
            receiver=f"webhook {number}",
            send=_sender(receiver, event, timeout),
            seconds=repeated_seconds(timeout),
        )


def _sender(
    receiver: WebhookSettings, event: Mapping[str, Any], timeout: float
) -> Callable[[], None]:
    body = json.dumps(event).encode()
    message_id = str(uuid.uuid4())

    def attempt() -> None:
        try:
            secret = read_key("notify.webhooks.secret_file", receiver.secret_file)
        except ConfigurationError as error:
            raise NotDelivered(error.message, passing=False) from None
        hide(secret)
        headers = signed(body, secret, message_id=message_id, seconds=int(time.time()))
        request("POST", receiver.url, timeout=timeout, body=body, headers=headers)

    return lambda: repeated(attempt)


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
    """Return what the secret may stand for: Standard Webhooks write keys in base64."""
    keys = [] if secret.startswith(_PREFIX) else [secret.encode()]
    try:
        decoded = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    return [*([decoded] if decoded else []), *keys] or [secret.encode()]
