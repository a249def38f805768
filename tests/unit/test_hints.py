"""Hints: by SQLSTATE, and none where nothing is known."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from opskit.postgres import hints


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (errors.TooManyConnections, "Free a connection"),
        (errors.InvalidPassword, "Check the user and the password"),
        (errors.SerializationFailure, "hot_standby_feedback"),
        (errors.OutOfMemory, "max_locks_per_transaction"),
        (errors.ProtocolViolation, "connection pooler"),
        (errors.CannotConnectNow, "Wait until the server has started"),
        (errors.UndefinedTable, hints.NEUTRAL),
        (errors.DivisionByZero, hints.NEUTRAL),
    ],
)
def test_a_hint_goes_by_the_code(error: type[psycopg.Error], hint: str) -> None:
    """Whatever words come with it, also those of other errors."""
    words = "permission denied: LOCK TABLE does not exist, too many connections"

    assert hints.of_error(error(words), words).startswith(hint) or hint in (
        hints.of_error(error(words), words)
    )


def test_a_refused_connection_is_told_from_an_unreachable_server() -> None:
    """The server answered: it is not to be looked for."""
    refused = "FATAL: sorry, too many clients already"
    unknown = "FATAL: no idea"
    unreachable = "connection refused"

    assert "Free a connection" in hints.of_error(
        psycopg.OperationalError(refused), refused
    )
    assert hints.of_error(psycopg.OperationalError(unknown), unknown) == hints.NEUTRAL
    assert "reachable" in hints.of_error(
        psycopg.OperationalError(unreachable), unreachable
    )
