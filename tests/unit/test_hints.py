"""Hints: by SQLSTATE, and none where nothing is known."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from opskit.postgres import faults


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (errors.TooManyConnections, "Free a connection"),
        (errors.InvalidPassword, "Check the user and the password"),
        (errors.SerializationFailure, "hot_standby_feedback"),
        (errors.OutOfMemory, "max_locks_per_transaction"),
        (errors.ProtocolViolation, "connection pooler"),
        (errors.CannotConnectNow, "Wait until the server has started"),
        (errors.UndefinedTable, faults.NEUTRAL),
        (errors.DivisionByZero, faults.NEUTRAL),
    ],
)
def test_a_hint_goes_by_the_code(error: type[psycopg.Error], hint: str) -> None:
    """Whatever words come with it, also those of other errors."""
    words = "permission denied: LOCK TABLE does not exist, too many connections"

    assert faults.of_error(error(words), words).startswith(hint) or hint in (
        faults.of_error(error(words), words)
    )


def test_a_refused_connection_is_told_from_an_unreachable_server() -> None:
    """The server answered: it is not to be looked for."""
    refused = "FATAL: sorry, too many clients already"
    unknown = "FATAL: no idea"
    unreachable = "connection refused"

    assert "Free a connection" in faults.of_error(
        psycopg.OperationalError(refused), refused
    )
    assert faults.of_error(psycopg.OperationalError(unknown), unknown) == faults.NEUTRAL
    assert "reachable" in faults.of_error(
        psycopg.OperationalError(unreachable), unreachable
    )
