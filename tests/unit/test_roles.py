"""Roles: in what two records differ, as far as both servers can tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from opskit.drill.run import compare_roles
from opskit.postgres import roles
from opskit.postgres.inventory import Inventory, Role
from opskit.preflight.concessions import Concessions


def _role(**changes: Any) -> Role:
    fields: dict[str, Any] = {
        "name": "app",
        "login": True,
        "member_of": [["ops", True, True, False]],
        "password": "0a1b",
    }
    return Role(**(fields | changes))


def _differ(
    before: Role,
    after: Role,
    majors: tuple[int, int] = (16, 17),
    **how: bool,
) -> list[str]:
    return before.differences(after, majors=majors, **how)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, []),
        ({"login": False}, ["login"]),
        ({"superuser": True}, ["superuser"]),
        ({"password": "ffff"}, ["password"]),
        ({"password": None, "login": False}, ["login", "password"]),
        ({"member_of": [["ops", True, True, True]]}, ["member_of"]),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], differs: list[str]) -> None:
    """Each right, setting and membership by itself."""
    assert _differ(_role(), _role(**change)) == differs


@pytest.mark.parametrize("change", [{"password": "ffff"}, {"password": None}])
def test_passwords_may_be_left_aside(change: dict[str, Any]) -> None:
    """Nothing else is, then."""
    after = _role(**change)

    assert _differ(_role(), after, with_password=False) == []
    assert _differ(_role(), _role(login=False, **change), with_password=False) == [
        "login"
    ]


def test_grants_on_settings_may_be_left_aside() -> None:
    """The first role has them of itself as soon as another has one."""
    before, after = _role(parameters=["work_mem SET"]), _role(parameters=[])

    assert _differ(before, after) == ["parameters"]
    assert _differ(before, after, with_parameters=False) == []


def test_a_password_that_was_not_read_is_not_compared() -> None:
    """It may be any."""
    before = _role(password=None, password_unread=True)

    assert _differ(before, _role()) == []
    assert _differ(before, _role(login=False)) == ["login"]


@pytest.mark.parametrize(("majors", "differs"), [((15, 16), []), ((16, 15), [])])
def test_options_of_memberships_are_compared_where_both_have_them(
    majors: tuple[int, int], differs: list[str]
) -> None:
    """Before PostgreSQL 16 a membership has none."""
    after = _role(member_of=[["ops", True, None, None]])

    assert _differ(_role(), after, majors) == differs
    assert _differ(_role(), after) == ["member_of"]


@pytest.mark.parametrize("is_throwaway", [True, False])
@pytest.mark.parametrize(
    ("recorded", "there", "detail"),
    [
        (["app", "ops"], ["app", "ops"], ""),
        (["app", "ops"], ["app"], "ops"),
        (["app"], ["app", "ops"], "ops"),
        (["app"], ["app"], "ops"),
    ],
)
def test_a_role_that_is_missing_on_either_side_differs(
    monkeypatch: pytest.MonkeyPatch,
    is_throwaway: bool,
    recorded: list[str],
    there: list[str],
    detail: str,
) -> None:
    """A needed one also where neither side knows it; of a new server any at all."""
    monkeypatch.setattr(roles, "take", lambda _: [_role(name=e) for e in there])
    monkeypatch.setattr(roles, "first_role", lambda _: "postgres")
    inventory = Inventory(
        roles=tuple(_role(name=each) for each in recorded),
        needed_roles=("app", "ops"),
        first_role="postgres",
    )
    manifest: Any = SimpleNamespace(inventory=inventory, server_major=16)
    place: Any = SimpleNamespace(connection=None, is_throwaway=is_throwaway, major=16)
    copy: Any = SimpleNamespace(manifest=manifest)

    check = compare_roles(place, copy, Concessions())

    if is_throwaway and "ops" not in {*recorded, *there}:
        detail = ""
    assert (check.passed, check.detail) == (detail == "", detail)
