"""Heartbeats: a service that alarms when runs stop is told of each one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlencode, urlsplit, urlunsplit
from uuid import UUID

from opskit.config import Settings
from opskit.operations.outcome import Record
from opskit.watch.deliveries import Delivery, repeated, repeated_seconds, request

Signal = Literal["start", "success", "fail"]


def heartbeats(
    settings: Settings, record: Record, signal: Signal
) -> Iterator[Delivery]:
    """Yield the request about a backup or a drill, if its source has a heartbeat."""
    notify = settings.notify
    addresses, name = {
        "backup": (notify.heartbeats, "heartbeat"),
        "restore-drill": (notify.drill_heartbeats, "drill heartbeat"),
    }.get(record.operation, ({}, ""))
    source = str(record.details.get("source", ""))
    if source not in addresses:
        return
    url = _address(addresses[source].get_secret_value(), signal, record.run_id)
    timeout = notify.timeout.total_seconds()

    def send() -> None:
        request("GET", url, timeout=timeout)

    once = signal == "start"  # what is about to run does not wait for long
    yield Delivery(
        receiver=f"{name} {source}",
        send=send if once else lambda: repeated(send),
        seconds=timeout if once else repeated_seconds(timeout),
    )


def _address(url: str, signal: Signal, run_id: str) -> str:
    """Return the address of a signal in the form of healthchecks.io.

    The id of the run has to be a UUID there: it is the last group of one.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + ("" if signal == "success" else f"/{signal}")
    rid = urlencode({"rid": UUID(int=int(run_id, 16))})
    query = f"{parts.query}&{rid}" if parts.query else rid
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))
