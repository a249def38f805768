"""Tracking: failed operations and unexpected errors, as events for Sentry."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from opskit import __version__
from opskit.config.watch import NotifySettings
from opskit.errors import ConfigurationError
from opskit.log import masked
from opskit.operations.outcome import Record
from opskit.operations.run import Run
from opskit.watch.alerts import Ending

if TYPE_CHECKING:
    from sentry_sdk.transport import HttpTransport
    from sentry_sdk.types import Event, Hint

_FLUSH_SECONDS = 5.0
_flushing = threading.Lock()
# What the library adds by itself about the machine.
_NOT_SENT = ("server_name", "modules", "extra", "user", "request", "breadcrumbs")


class Tracking:
    """Reports failed operations, and has `capture` report unexpected errors.

    Raises:
        ConfigurationError: the address is not one of Sentry's form.
    """

    def __init__(self, settings: NotifySettings) -> None:
        import sentry_sdk
        from sentry_sdk.utils import BadDsn

        before = sentry_sdk.get_client()
        try:
            sentry_sdk.init(
                dsn=settings.sentry_dsn.get_secret_value(),
                release=f"opskit@{__version__}",
                default_integrations=False,
                auto_enabling_integrations=False,
                include_local_variables=False,
                send_client_reports=False,
                max_breadcrumbs=0,
                debug=False,
                spotlight=False,
                before_send=_scrubbed,
                transport=_transport(),
            )
        except BadDsn:
            raise ConfigurationError(
                "notify.sentry_dsn is not the address of a project",
                hint="Copy it from the project's settings: https://KEY@HOST/PROJECT.",
            ) from None
        before.close(timeout=0)  # it sends what waits, and its thread ends

    def started(self, run: Run, record: Record) -> None:
        """Nothing is reported of a beginning."""

    def ended(self, run: Run, record: Record) -> None:
        """Report an operation that failed."""
        latest = Ending.of(record)
        if latest.outcome not in ("failed", "missed") or not record.failures:
            return
        import sentry_sdk

        words = record.details.get("error", "")
        event: Event = {
            "level": "error",
            "message": f"{latest.subject} {latest.outcome}: {words}",
            "fingerprint": [latest.subject, latest.fault],
            "tags": {
                "operation": latest.operation,
                "source": latest.source,
                "code": str(record.details.get("code", "")),
                "run_id": record.run_id,
            },
        }
        sentry_sdk.capture_event(event)
        sentry_sdk.flush(_FLUSH_SECONDS)


def capture(error: BaseException) -> None:
    """Report an unexpected error, if errors are tracked.

    Of several callers at once one waits until what they report is sent.
    """
    if (sentry_sdk := sys.modules.get("sentry_sdk")) is None:
        return
    sentry_sdk.capture_exception(error)
    if _flushing.acquire(blocking=False):
        try:
            sentry_sdk.flush(_FLUSH_SECONDS)
        finally:
            _flushing.release()


def _scrubbed(event: Event, _hint: Hint) -> Event:
    """Return an event without secrets and without what errors say of data."""
    kept: Any = {key: each for key, each in event.items() if key not in _NOT_SENT}
    for each in kept.get("exception", {}).get("values", ()):
        each["value"] = ""  # it may hold values of rows
    scrubbed: Event = masked(kept)
    return scrubbed


def _transport() -> type[HttpTransport]:
    from sentry_sdk.transport import HttpTransport

    class Transport(HttpTransport):
        """Sends events, and follows no redirects."""

        def _request(
            self, method: str, endpoint_type: Any, body: Any, headers: Any
        ) -> Any:
            return self._pool.request(
                method,
                self._auth.get_api_url(endpoint_type),
                body=body,
                headers=headers,
                redirect=False,
            )

    return Transport
