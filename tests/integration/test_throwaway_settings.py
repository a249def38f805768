"""How throw-away servers are set up, asked of servers that run."""

from __future__ import annotations

import pytest

from opskit.postgres.connect import connect, query_value
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.programs import SERVER_PROGRAMS

_ABLE = """
    SELECT 'lz4' = ANY (enumvals) FROM pg_settings
    WHERE name = 'default_toast_compression'
"""


def _setting(running: throwaway.Server, name: str) -> str:
    with connect(running.url(), purpose="test") as connection:
        return str(query_value(connection, "SELECT current_setting(%s)", name))


@pytest.mark.parametrize("major", [15, 16, 18])
def test_a_server_compresses_quickly_if_it_can(major: int) -> None:
    """With lz4 where it was built with that; where not, it starts all the same."""
    found = programs.find_server(programs.installations(), major=major)
    with throwaway.throwaway(found) as running:
        with connect(running.url(), purpose="test") as connection:
            able = query_value(connection, _ABLE)

        expected = "lz4" if able else "pglz"
        assert _setting(running, "default_toast_compression") == expected
        for name, value in throwaway.SETTINGS.items():
            assert _setting(running, name).removesuffix(" ") == value


def test_what_the_user_sets_stays() -> None:
    """A setting of the configuration's counts more than ours."""
    found = next(each for each in programs.installations() if each.has(SERVER_PROGRAMS))
    chosen = {"default_toast_compression": "pglz", "work_mem": "5MB"}
    with throwaway.throwaway(found, settings=chosen) as running:
        assert {name: _setting(running, name) for name in chosen} == chosen
