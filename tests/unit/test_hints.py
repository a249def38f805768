"""Hints: by SQLSTATE, and none where nothing is known."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from opskit.postgres import connect


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (errors.TooManyConnections, "Free a connection"),
        (errors.InvalidPassword, "Check the user and the password"),
        (errors.SerializationFailure, "hot_standby_feedback"),
        (errors.OutOfMemory, "max_locks_per_transaction"),
        (errors.ProtocolViolation, "connection pooler"),
        (errors.CannotConnectNow, "Wait until the server has started"),
        (errors.UndefinedTable, connect.NEUTRAL),
        (errors.DivisionByZero, connect.NEUTRAL),
    ],
)
def test_a_hint_goes_by_the_code(error: type[psycopg.Error], hint: str) -> None:
    """Whatever words come with it, also those of other errors."""
    words = "permission denied: LOCK TABLE does not exist, too many connections"

    assert connect.hint_for(error(words), words).startswith(hint) or hint in (
        connect.hint_for(error(words), words)
    )


def test_a_refused_connection_is_told_from_an_unreachable_server() -> None:
    """The server answered: it is not to be looked for."""
    refused = "FATAL: sorry, too many clients already"
    unknown = "FATAL: no idea"
    unreachable = "connection refused"

    assert "Free a connection" in connect.hint_for(
        psycopg.OperationalError(refused), refused
    )
    assert (
        connect.hint_for(psycopg.OperationalError(unknown), unknown) == connect.NEUTRAL
    )
    assert "reachable" in connect.hint_for(
        psycopg.OperationalError(unreachable), unreachable
    )
