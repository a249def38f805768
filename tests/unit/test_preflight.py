"""Preflight: what a server lacks is named, each thing once, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from opskit.postgres import extensions, roles, survey
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection
from opskit.postgres.inventory import Inventory, Role
from opskit.postgres.survey import Capabilities
from opskit.preflight import shortages
from opskit.preflight.concessions import Concessions
from opskit.preflight.shortages import Shortage
from opskit.restore.run import not_accepted
from tests.unit.entries import entry, inventory, offered

CONNECTION = cast(Connection, object())
LOCALES = {"de_DE.UTF-8", "en_US.UTF-8", "fr_FR.UTF-8", "da_DK.utf8"}
TABLE = entry(1, "TABLE", "t", access_method="heap")
COLUMNAR = entry(2, "TABLE", "columnar", access_method="columnar")

Look = Callable[..., list[Shortage]]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Return a function that looks at a server for what an inventory needs."""

    def look(
        server: Capabilities | None = None,
        needs: Inventory | None = None,
        entries: Iterable[TocEntry] = (TABLE,),
        *,
        locales: Iterable[str] = LOCALES,
        catalog: Iterable[str] = ("sv_SE",),
        former: Iterable[str] = (),
        there: Iterable[Role] = (),
        creates: bool = False,
    ) -> list[Shortage]:
        known, names, other = set(locales), set(catalog), set(former)
        monkeypatch.setattr(survey, "capabilities", lambda _c: server or offered())
        monkeypatch.setattr(survey, "has_locale", lambda _c, name: name in known)
        monkeypatch.setattr(
            survey,
            "has_collation",
            lambda _c, schema, name: schema == "pg_catalog" and name in names,
        )
        monkeypatch.setattr(survey, "has_setting", lambda _c, name: name in other)
        monkeypatch.setattr(roles, "take", lambda _c: list(there))
        monkeypatch.setattr(shortages, "server_major", lambda _c: 16)
        return shortages.shortages(
            CONNECTION,
            inventory() if needs is None else needs,
            list(entries),
            creates_roles=creates,
            is_throwaway=creates,
        )

    return look


def _names(found: Iterable[Shortage]) -> list[str]:
    return [each.name for each in found]


def test_a_server_that_has_it_all_lacks_nothing(look: Look) -> None:
    """A restore may begin."""
    assert look() == []


@pytest.mark.parametrize("usable", [True, False])
def test_a_library_that_an_extension_needs_is_named(
    look: Look, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    """Not those that no extension of the set needs, nor an extension's that lacks."""
    asked: list[str] = []

    def is_usable(_connection: object, name: str) -> bool:
        asked.append(name)
        return usable

    monkeypatch.setattr(extensions, "is_usable", is_usable)
    settings = {"shared_preload_libraries": 'auto_explain, "$libdir/pg_cron", other'}
    found = look(needs=inventory(settings=settings, has_money=False))

    assert asked == ["pg_cron"]
    assert _names(found) == ([] if usable else ["library pg_cron"])


@pytest.mark.parametrize(
    ("lacks", "names"),
    [
        ({"extensions": {"pg_cron": frozenset({"1.6"})}}, ["extension hstore"]),
        (
            {
                "extensions": {
                    "hstore": frozenset({"1.8"}),
                    "pg_cron": frozenset({"1.5"}),
                }
            },
            ["extension-version pg_cron"],
        ),
        ({"settings": frozenset({"work_mem"})}, ["setting pg_cron_timeout"]),
        ({"settings": frozenset({"pg_cron_timeout"})}, ["setting work_mem"]),
        ({"access_methods": frozenset()}, ["access-method heap"]),
        ({"roles": frozenset({"ops"})}, ["role app"]),
        ({"roles": frozenset({"app"})}, ["role ops"]),
        ({"tablespaces": frozenset({"fast"})}, ["tablespace slow"]),
        ({"has_icu": False}, ["provider icu", "collation public.german"]),
        ({"has_builtin_provider": False}, ["collation public.plain"]),
    ],
)
def test_what_a_server_lacks_is_named(
    look: Look, lacks: dict[str, Any], names: list[str]
) -> None:
    """Each by its kind and its own name, as it may be allowed."""
    assert _names(look(offered(**lacks))) == names


@pytest.mark.parametrize(
    ("locale", "names"),
    [
        ("de_DE.UTF-8", ["locale de_DE.UTF-8"]),
        ("en_US.UTF-8", ["locale en_US.UTF-8"]),
        ("fr_FR.UTF-8", ["lc_monetary fr_FR.UTF-8"]),
        ("da_DK.utf8", ["collation sales.Dansk"]),
    ],
)
def test_a_locale_that_the_machine_lacks_is_named(
    look: Look, locale: str, names: list[str]
) -> None:
    """Order, classes of characters, money and collations each need theirs."""
    assert _names(look(locales=LOCALES - {locale})) == names


def test_a_collation_of_the_catalog_is_looked_up_by_name(look: Look) -> None:
    """initdb made it if the machine had the locale then."""
    (found,) = look(catalog=())

    assert found.name == "collation pg_catalog.sv_SE"
    assert "sv_SE.utf8" in found.detail


@pytest.mark.parametrize("locale", ["C", "POSIX", "", None])
def test_some_locales_are_everywhere(look: Look, locale: str | None) -> None:
    """The machine is not asked for these, nor for one that is not set."""
    needs = inventory(
        locale={"provider": "libc", "collate": locale or "C", "ctype": locale or "C"},
        settings={"lc_monetary": locale},
        collations=[
            {"schema": "public", "name": "c", "provider": "libc", "locale": locale}
        ],
    )

    assert look(needs=needs, locales=()) == []


def test_the_locale_of_money_matters_only_to_money(look: Look) -> None:
    """Without a column of that type it is the server's own affair."""
    assert (
        look(needs=inventory(has_money=False), locales=LOCALES - {"fr_FR.UTF-8"}) == []
    )


@pytest.mark.parametrize(
    ("provider", "lacks", "names"),
    [
        ("builtin", {"has_builtin_provider": False}, ["provider builtin"]),
        ("builtin", {"has_icu": False}, []),
        ("icu", {"has_icu": False}, ["provider icu"]),
        ("icu", {"has_builtin_provider": False}, []),
        ("libc", {"has_icu": False, "has_builtin_provider": False}, []),
    ],
)
def test_the_provider_of_the_databases_locale_is_needed(
    look: Look, provider: str, lacks: dict[str, bool], names: list[str]
) -> None:
    """Each provider by itself: the lack of another one does not matter."""
    locale = {"provider": provider, "collate": "C", "ctype": "C", "locale": "C"}

    assert (
        _names(look(offered(**lacks), inventory(locale=locale, collations=[]))) == names
    )


def test_settings_are_known_whatever_their_case(look: Look) -> None:
    """The server's names are small; one with a dot is anybody's own."""
    needs = inventory(
        database_settings=[{"role": None, "settings": ["TimeZone", "x.y"]}]
    )

    assert _names(look(needs=needs)) == ["setting timezone"]
    assert look(offered(settings=frozenset({"timezone"})), needs) == []
    assert look(needs=needs, former={"timezone"}) == []


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ({"name": "app", "login": True}, []),
        ({"name": "app", "login": False}, ["role-attributes app"]),
        ({"name": "app", "login": True, "superuser": True}, ["role-attributes app"]),
        ({"name": "other", "login": False}, []),
    ],
)
def test_a_role_that_is_there_must_be_as_it_was(
    look: Look, role: dict[str, Any], names: list[str]
) -> None:
    """Only one that is needed, and only where the set's own are not made."""
    assert _names(look(there=[Role(**role)])) == names
    assert look(there=[Role(**role)], creates=True) == []


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ([TABLE, COLUMNAR], ["access-method columnar"]),
        ([entry(3, "ACCESS METHOD", "columnar", schema=""), COLUMNAR], []),
        ([entry(3, "EXTENSION", "citus", schema=""), COLUMNAR], []),
        (
            [entry(3, "ACCESS METHOD", "other", schema=""), COLUMNAR],
            ["access-method columnar"],
        ),
    ],
)
def test_an_access_method_may_come_with_the_archive(
    look: Look, entries: list[TocEntry], names: list[str]
) -> None:
    """Made by the archive itself, or by one of its extensions, it is not missing."""
    assert _names(look(entries=entries)) == names


def test_owners_are_needed_roles(look: Look) -> None:
    """Whom an object belongs to must be there, whatever the inventory says of it."""
    entries = [entry(1, "VIEW", "v", owner="ann"), entry(2, "COMMENT", "c", owner="")]

    assert _names(look(entries=entries)) == ["role ann"]


def test_what_is_made_first_is_not_missing(look: Look) -> None:
    """A throw-away server gets the set's roles and tablespaces, but nothing else."""
    bare = offered(roles=frozenset(), tablespaces=frozenset(), extensions={})

    assert _names(look(bare, creates=True)) == ["extension hstore", "extension pg_cron"]


def test_each_shortage_says_what_is_missing_and_what_to_do(look: Look) -> None:
    """What may be accepted is then said not to have been checked."""
    bare = offered(
        extensions={"hstore": frozenset({"1.7", "1.9"})},
        settings=frozenset(),
        tablespaces=frozenset(),
        roles=frozenset(),
        access_methods=frozenset(),
        has_icu=False,
        has_builtin_provider=False,
    )
    found = look(bare, locales=(), catalog=())

    assert {each.what for each in found} == {
        "extension", "extension-version", "locale", "provider", "collation",
        "setting", "access-method", "role", "tablespace", "lc_monetary",
    }  # fmt: skip
    assert all(each.detail and each.hint.endswith((".", ").")) for each in found)
    assert all(
        Concessions(accepted=(each,)).unmade([])
        for each in found
        if each.what != "lc_monetary"  # which may never be
    )
    assert "offers only 1.7, 1.9" in found[0].detail


def test_who_does_without_an_extension_needs_no_right_to_create_it() -> None:
    """In a restore and in its dry run."""
    create, connect = (
        Shortage(what="right", subject=each, detail="", hint="")
        for each in ("extension hstore", "CREATEDB")
    )

    assert not_accepted([create, connect], ["extension hstore"]) == [connect]
