"""`doctor`: examine everything that a backup and a drill will need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.tasks.command import Say, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.checks import Check
    from opskit.operations.doctor import Examined
    from opskit.operations.outcome import Outcome


@command(help={"json": "print one JSON document"})
def doctor(say: Say, json: bool = False) -> Outcome[Examined]:
    """Check configuration, databases, programs, stores, space and drill servers.

    Example: inv doctor
    """
    from opskit.operations.doctor import doctor as examine
    from opskit.operations.run import start

    return examine(start(), on_check=lambda check: say(*_lines(check)))


def _lines(check: Check) -> Iterator[str]:
    limit = f" ({check.expected})" if check.expected else ""
    yield f"{check.status:<9} {check.name}: {check.observed}{limit}"
    if check.hint:
        yield f"          {check.hint}"
