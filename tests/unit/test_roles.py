"""Roles: in what two records differ, as far as both servers can tell."""

from __future__ import annotations

from typing import Any

import pytest

from opskit.postgres.roles import differences


def _role(**changes: Any) -> dict[str, Any]:
    fields = {
        "name": "app",
        "login": True,
        "member_of": [["ops", True, True, False]],
        "password": "0a1b",
    }
    return fields | changes


def _differ(
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    majors: tuple[int, int] = (16, 17),
    **how: bool,
) -> list[str]:
    return differences(before, after, majors=majors, **how)


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
    assert _differ(_role(), after | {"login": False}, with_password=False) == ["login"]


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


def test_a_role_that_is_not_there_is_missing() -> None:
    """On whichever side."""
    assert _differ(_role(), None) == _differ(None, _role()) == ["missing"]
