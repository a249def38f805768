"""Existing servers to drill on: which one is refused, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from pydantic import SecretStr

from opskit.config import DrillSettings
from opskit.drill import servers
from opskit.drill.servers import DrillServer, open_server
from opskit.errors import ClientToolError, ConfigurationError
from opskit.postgres import survey
from opskit.postgres.connect import Connection
from opskit.postgres.parameters import parse
from tests.unit.entries import inventory

URL = "postgresql://ops:hunter2@drill.example:6432/postgres"
SOURCE = "7300000000000000001"


@pytest.fixture
def existing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is found at the address of an existing server."""
    found: dict[str, Any] = {
        "major": 16,
        "version": "16.4 (Debian 16.4-1)",
        "system_identifier": "7399999999999999999",
        "is_superuser": True,
    }

    @contextmanager
    def connect(url: str, *, purpose: str) -> Iterator[Connection]:
        assert (url, purpose) == (URL, "drill")
        yield cast(Connection, object())

    monkeypatch.setattr(servers, "connect", connect)
    monkeypatch.setattr(servers, "server_major", lambda _c: found["major"])
    monkeypatch.setattr(servers, "query_value", lambda _c, _sql: found["version"])
    monkeypatch.setattr(
        survey, "system_identifier", lambda _c: found["system_identifier"]
    )
    monkeypatch.setattr(survey, "is_superuser", lambda _c: found["is_superuser"])
    return found


def _opened(settings: DrillSettings, major: int = 16) -> DrillServer:
    with open_server(
        settings, [], inventory(server_version=f"{major}.4", system_identifier=SOURCE)
    ) as found:
        return found


def test_an_existing_server_is_taken_as_it_is(existing: dict[str, Any]) -> None:
    """It is not thrown away; each database is reached by the same address."""
    running = _opened(DrillSettings(server="existing", existing_url=SecretStr(URL)))

    assert existing["major"] == running.major
    assert not running.is_throwaway
    assert running.description == "PostgreSQL 16.4 (existing)"
    assert parse(running.url("a b")) == parse(URL) | {"dbname": "a b"}
    assert "hunter2" not in repr(running)


def test_an_existing_server_needs_an_address() -> None:
    """Nothing is guessed from the environment."""
    with pytest.raises(ConfigurationError, match="needs the address") as refused:
        _opened(DrillSettings(server="existing"))

    assert "existing_url" in refused.value.hint


@pytest.mark.parametrize("major", [16, 15])
def test_the_source_itself_is_refused(existing: dict[str, Any], major: int) -> None:
    """By what initdb gave it, whatever its address; also if it was made newer since."""
    existing |= {"system_identifier": SOURCE, "major": major}

    with pytest.raises(ConfigurationError, match="the very server") as refused:
        _opened(DrillSettings(server="existing", existing_url=SecretStr(URL)))

    assert "on_source_server = true" in refused.value.hint


def test_the_source_itself_may_be_allowed(existing: dict[str, Any]) -> None:
    """Then the evidence says so; another server is not called it."""
    request = DrillSettings(
        server="existing", existing_url=SecretStr(URL), on_source_server=True
    )
    other = _opened(request).description
    existing["system_identifier"] = SOURCE

    assert _opened(request).description.endswith(", the source's own")
    assert "the source's own" not in other


def test_a_role_that_may_not_do_everything_is_refused(existing: dict[str, Any]) -> None:
    """Before anything is made there."""
    existing["is_superuser"] = False

    with pytest.raises(ConfigurationError, match="no superuser"):
        _opened(DrillSettings(server="existing", existing_url=SecretStr(URL)))


def test_addresses_are_not_shown_by_accident() -> None:
    """A request may stand in a log."""
    assert "hunter2" not in repr(DrillSettings(existing_url=SecretStr(URL)))


@pytest.mark.parametrize(
    ("found", "accepts", "hint"),
    [
        (15, False, "does not go back"),
        (15, True, "does not go back"),
        (17, False, "accept_newer_major = true"),
    ],
)
def test_another_major_is_refused(
    existing: dict[str, Any],
    found: int,
    accepts: bool,
    hint: str,
) -> None:
    """An older one always, a newer one unless it is accepted."""
    existing["major"] = found
    request = DrillSettings(
        server="existing", existing_url=SecretStr(URL), accept_newer_major=accepts
    )

    with pytest.raises(
        ClientToolError, match=f"is PostgreSQL {found}, .* 16$"
    ) as refused:
        _opened(request)

    assert hint in refused.value.hint


def test_a_newer_major_may_be_accepted_anywhere(existing: dict[str, Any]) -> None:
    """The evidence says what it was."""
    existing["major"] = 18
    running = _opened(
        DrillSettings(
            server="existing", existing_url=SecretStr(URL), accept_newer_major=True
        )
    )

    assert running.major == 18
    assert "newer than the source's 16" in running.description
