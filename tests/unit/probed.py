"""Asks one probe of a small web application, or of what else listens."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from opskit.checks import Check, not_checked
from opskit.config.smoke import SmokeSettings
from opskit.config.watch import SloSettings
from opskit.operations.smoke import families
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer
from opskit.probes.session import Session, Target
from tests.asgi import serving

Respond = Callable[[Request], Response]


class _Application:
    """Answers every request as it was last told to."""

    respond: Respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.respond(Request(scope, receive))(scope, receive, send)


@cache
def _served() -> tuple[_Application, str]:
    """Serve one application for all tests of this process, which is cheap."""
    application, stack = _Application(), ExitStack()
    url = stack.enter_context(serving(application))
    atexit.register(stack.close)
    return application, url


def named(settings: SmokeSettings, name: str) -> Probe:
    """Return the probe of that name."""
    family = name.partition(".")[0]
    probes = families(settings, SloSettings())[family]
    (found,) = (each for each in probes if each.name == name)
    return found


def asked(
    respond: Respond,
    name: str,
    *,
    keys: Mapping[str, Mapping[str, str]] | None = None,
    **sections: Any,
) -> Check:
    """Ask the probe of that name once; inconclusive is not checked."""
    application, url = _served()
    application.respond = respond
    return asked_at(url, name, keys=keys, **sections)


def patiently(ask: Callable[[], Check]) -> Check:
    """Ask until it passes, three times at most.

    A single answer is no verdict of `smoke` either: where a machine paused, it asks
    again.
    """
    for _ in range(2):
        if (check := ask()).passed:
            return check
    return ask()


def decidedly(ask: Callable[[], Check]) -> Check:
    """Ask again where there is no verdict, three times at most."""
    for _ in range(2):
        if (check := ask()).passed is not None:
            return check
    return ask()


def asked_at(
    url: str,
    name: str,
    *,
    keys: Mapping[str, Mapping[str, str]] | None = None,
    **sections: Any,
) -> Check:
    """Ask the probe of that name once at an address."""
    settings = SmokeSettings.model_validate({"url": url, "timeout": "60s", **sections})
    target = Target(
        url=url,
        timeout_seconds=settings.timeout.total_seconds(),
        keys=keys or {},
        identity=settings.identity,
        ca_file=settings.tls.ca_file,
    )
    with Session(target) as session:
        try:
            return named(settings, name).ask(session)
        except WrongAnswer as wrong:
            return Check(
                name=name,
                passed=False,
                expected=wrong.expected,
                observed=wrong.observed,
            )
        except Inconclusive as error:
            return not_checked(name, str(error))
