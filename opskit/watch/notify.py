"""Notifier: reports operations to receivers, and records which were not reached."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

from opskit import log
from opskit.checks import Check, attempt
from opskit.config import Settings
from opskit.config.watch import WebhookSettings, read_key
from opskit.ledger import LedgerEntry
from opskit.operations.outcome import Record
from opskit.operations.run import Run
from opskit.watch.alerts import Ending, Kind, decide, doubts, facts
from opskit.watch.deliveries import Delivery, deliver
from opskit.watch.receivers import (
    OPERATION,
    Tone,
    heartbeats,
    last_notified,
    services,
    undelivered,
    webhooks,
)

_TITLES = {
    "failed": "{subject} failed",
    "missed": "{subject} did not run",
    "recovered": "{subject} works again",
    "suspicious": "{subject} looks wrong",
}
_TONES: dict[Kind, Tone] = {"recovered": "success", "suspicious": "warning"}


class Notifier:
    """Reports faults and recoveries to people, and every operation to programs.

    Raises:
        ConfigurationError: an address matches no service.
    """

    def __init__(self, settings: Settings) -> None:
        self._services = list(services(settings.notify))

    def started(self, run: Run, record: Record) -> None:
        """Say that a source's backup or drill begins."""
        if deliveries := list(heartbeats(run.settings, record, "start")):
            entries, _faults = run.ledger.readable()
            _send(run, entries, Ending.of(record), deliveries)

    def ended(self, run: Run, record: Record) -> None:
        """Say how an operation ended."""
        latest = Ending.of(record)
        entries, _faults = run.ledger.readable()
        history = [
            Ending.of(each)
            for each in entries
            if record.entry is None or each.sequence < record.entry.sequence
        ]
        suspicious = doubts(history, latest)

        def kind(lost: Collection[int] = ()) -> Kind | None:
            after = run.settings.notify.recovery_after
            reported = decide(history, latest, recovery_after=after, lost=lost)
            return reported or ("suspicious" if suspicious else None)

        deliveries = [
            *heartbeats(run.settings, record, "success" if latest.good else "fail"),
            *webhooks(
                run.settings,
                _event(
                    f"{record.operation}.{latest.outcome}",
                    run,
                    _data(record, latest, kind()) | {"doubts": suspicious},
                ),
            ),
        ]
        for service in self._services:
            lost = undelivered(entries, service.name, run.settings.notify)
            if (what := kind(lost)) is not None:
                title = f"opskit: {_TITLES[what].format(subject=latest.subject)}"
                body = "\n".join([*suspicious, *_lines(record)])
                tone = _TONES.get(what, "failure")
                deliveries.append(service.message(title, body, tone))
        _send(run, entries, latest, deliveries)

    def test(self, run: Run) -> list[tuple[str, str]]:
        """Send a test message; return each receiver, and why it was not reached.

        Heartbeats are left out: a request to one counts as a run.
        """
        body = f"host: {socket.gethostname()}"
        deliveries = [
            *(
                each.message("opskit: test message", body, "info")
                for each in self._services
            ),
            *webhooks(run.settings, _event("test", run, {})),
        ]
        entries, _faults = run.ledger.readable()
        about = Ending(operation="test", source="", ended="ok", details={})
        return _send(run, entries, about, deliveries)


def examine(run: Run, *, send: bool) -> Iterator[Check]:
    """Yield whether hooks and receivers can be used; with `send`, by a test message."""
    hooks = run.settings.hooks
    for arguments in (*hooks.before, *hooks.after, *hooks.failed):
        program = shutil.which(arguments[0])
        yield Check(
            name=f"hook {arguments[0]}",
            passed=program is not None,
            observed=program or "there is no such program",
            hint="" if program else "Correct its path, and let this user run it.",
        )
    for number, receiver in enumerate(run.settings.notify.webhooks, 1):
        yield attempt(f"secret of webhook {number}", partial(_secret, receiver))
    if send:
        for name, reason in Notifier(run.settings).test(run):
            yield Check(
                name=f"notification {name}",
                passed=not reason,
                advisory=True,
                observed=reason or "took the test message",
                hint="Correct its address." if reason else "",
            )


def _secret(receiver: WebhookSettings) -> str:
    read_key("notify.webhooks.secret_file", receiver.secret_file)
    return f"{receiver.secret_file} can be read"


def _send(
    run: Run,
    entries: Sequence[LedgerEntry],
    about: Ending,
    deliveries: Sequence[Delivery],
) -> list[tuple[str, str]]:
    """Deliver, and return each receiver and why it was not reached.

    Each failure goes on record, and the first success after one, by the `entries`.
    """
    last = last_notified(entries, run.settings.notify)
    names = [each.receiver for each in deliveries]
    results = list(zip(names, deliver(deliveries), strict=True))
    for receiver, reason in results:
        if reason:
            log.logger().warning(
                "a receiver was not reached", receiver=receiver, reason=reason
            )
        if reason or (receiver in last and last[receiver].outcome != "ok"):
            _record(run, receiver, about, reason)
    return results


def _record(run: Run, receiver: str, about: Ending, reason: str) -> None:
    details = {
        "receiver": receiver,
        "about": about.subject,
        "sequence": about.number,
        "error": reason or None,
    }
    record = Record(
        operation=OPERATION,
        run_id=run.run_id,
        started_at=run.now(),
        details={key: each for key, each in details.items() if each is not None},
        ended="failed" if reason else "ok",
    )
    run.ledger.add(record)


def _event(kind: str, run: Run, data: dict[str, Any]) -> dict[str, Any]:
    """Return a message for programs, in the form of Standard Webhooks."""
    common = {"run_id": run.run_id, "host": socket.gethostname()}
    return {"type": kind, "timestamp": run.now().isoformat(), "data": common | data}


def _data(record: Record, latest: Ending, kind: Kind | None) -> dict[str, Any]:
    """Return what programs learn: the ledger's record, without servers' words."""
    return facts(record, latest.outcome) | {
        "alert": kind,
        "started_at": record.started_at.isoformat(),
        "seconds": round(record.seconds, 3),
    }


def _lines(record: Record) -> Iterator[str]:
    """Yield the text for people; servers' words may hold rows and stay here."""
    if error := record.details.get("error"):
        yield log.mask(f"error: {error}")
    if record.failures and (hint := record.failures[0].hint):
        yield log.mask(f"hint: {hint}")
    if backup_id := record.details.get("backup_id"):
        yield f"backup set: {backup_id}"
    yield f"host: {socket.gethostname()}"
    yield f"run: {record.run_id}, started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
