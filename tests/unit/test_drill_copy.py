"""A drill's surroundings: what is missing is refused, or done without by its name."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any, cast

import pytest

from opskit.drill import run, servers
from opskit.errors import DatabaseError
from opskit.postgres.connect import Connection
from opskit.preflight import shortages as preflight_shortages
from opskit.preflight.concessions import Concessions, accept
from opskit.preflight.shortages import Shortage
from opskit.restore import surroundings
from opskit.restore.surroundings import Place
from tests.unit import builders
from tests.unit.entries import entry, shortage

CRON = shortage("extension", "pg_cron")
ROLE = shortage("role", "My Role")
VERSION = shortage("extension-version", "hstore")
ENTRIES = [entry(3, "EXTENSION", "pg_cron", schema=""), entry(4, "TABLE", "t")]


def _place(*, is_throwaway: bool = True) -> Place:
    return Place(
        server_url="postgresql://db.example/c",
        connection=cast(Connection, object()),
        name="c",
        is_throwaway=is_throwaway,
    )


def _required(
    monkeypatch: pytest.MonkeyPatch,
    missing: Sequence[Shortage],
    allowed: Sequence[str],
    **place: bool,
) -> tuple[Concessions, dict[str, Any]]:
    asked: dict[str, Any] = {}

    def shortages(*_given: object, **how: bool) -> list[Shortage]:
        asked.update(how)
        return list(missing)

    monkeypatch.setattr(preflight_shortages, "shortages", shortages)
    manifest = builders.manifest()
    found = surroundings.shortages(_place(**place), manifest.inventory, ENTRIES)
    servers.require_allowed("PostgreSQL 16.4 (installed)", found, allowed)
    return accept(ENTRIES, found, manifest), asked


def test_all_that_is_missing_is_told_at_once() -> None:
    """What, why and what to do, and by which words it may be done without."""
    error = servers.lacking("PostgreSQL 16.4 (installed)", [CRON, ROLE])

    assert error.message == (
        "PostgreSQL 16.4 (installed) lacks what the set needs: "
        "the server has no pg_cron; the server has no My Role"
    )
    assert error.hint.startswith("Get pg_cron. ")
    assert 'allow = ["extension pg_cron", "role My Role"] in [drill]' in error.hint
    assert error.details == {
        "missing": [
            {
                "name": each.name,
                "detail": each.detail,
                "hint": each.hint,
            }
            for each in (CRON, ROLE)
        ]
    }
    assert (type(error), error.exit_code) == (DatabaseError, 30)


def test_with_nothing_missing_nothing_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is allowed but there is not left out."""
    made, _asked = _required(monkeypatch, [], ["extension pg_cron", "role My Role"])

    assert made == Concessions()


@pytest.mark.parametrize(
    "allowed",
    [
        [],
        ["pg_cron"],
        ["extension"],
        ["extension pg_cro"],
        ["extension pg_cron "],
        ["Extension pg_cron"],
        ["role pg_cron"],
        ["extension-version pg_cron"],
        ["*"],
    ],
)
def test_what_is_not_allowed_by_its_very_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, allowed: list[str]
) -> None:
    """Neither half a name nor that of another kind will do."""
    with pytest.raises(DatabaseError, match="pg_cron"):
        _required(monkeypatch, [CRON], allowed)


def test_one_that_is_allowed_excuses_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what is refused is named, as the user knows of the rest."""
    with pytest.raises(DatabaseError) as refused:
        _required(monkeypatch, [CRON, ROLE, VERSION], [ROLE.name, CRON.name])

    assert "My Role" not in refused.value.message
    assert 'allow = ["extension-version hstore"]' in refused.value.hint


def test_what_is_allowed_is_left_out_and_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The concessions hold each shortage and the entries that go with it."""
    made, _asked = _required(monkeypatch, [CRON, ROLE], [ROLE.name, CRON.name])

    assert made.accepted == (CRON, ROLE)
    assert made.left_out == {3}


@pytest.mark.parametrize("what", ["access-method", "lc_monetary"])
def test_what_nothing_can_stand_in_for_is_refused_though_allowed(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Neither a way to store tables nor what amounts of money look like."""
    lacks = shortage(what, "columnar")

    with pytest.raises(DatabaseError, match="columnar"):
        _required(monkeypatch, [lacks], [lacks.name])


@pytest.mark.parametrize("name", ["My Role", 'a"b', "back\\slash", "a\tb", "ü", "q' x"])
def test_the_hint_can_be_copied_into_the_configuration(name: str) -> None:
    """Whatever the role is called, the line that is shown is TOML, and means it."""
    error = servers.lacking("a server", [shortage("role", name), CRON])
    (line,) = re.findall(r"allow = \[.*\](?= in \[drill\])", error.hint)

    assert tomllib.loads(line) == {"allow": [f"role {name}", "extension pg_cron"]}


@pytest.mark.parametrize("is_throwaway", [True, False])
def test_what_the_backup_could_not_read_is_told(is_throwaway: bool) -> None:
    """Each by its name; on another's server passwords are not compared either."""
    made = builders.manifest(
        inventory={"not_dumped": ["subscriptions s", "options of user mappings m"]}
    )
    found = dict(run.unmade_anyway(_place(is_throwaway=is_throwaway), made))

    assert list(found) == [
        "subscriptions s",
        "options of user mappings m",
        *([] if is_throwaway else ["passwords of roles"]),
    ]
    assert all(found.values())


def test_a_set_that_does_not_say_what_it_lacks_is_taken_to_lack_nothing() -> None:
    """Sets that were made before it was noted are drilled as well."""
    assert run.unmade_anyway(_place(), builders.manifest()) == []


@pytest.mark.parametrize("is_throwaway", [True, False])
def test_only_a_throw_away_server_gets_roles_and_tablespaces(
    monkeypatch: pytest.MonkeyPatch, is_throwaway: bool
) -> None:
    """On another one they must be there before."""
    _made, asked = _required(monkeypatch, [], [], is_throwaway=is_throwaway)

    assert asked == {
        "creates_roles": is_throwaway,
        "is_throwaway": is_throwaway,
    }
