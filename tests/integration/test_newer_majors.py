"""Sets of older majors on newer servers: what came to a major since is no difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opskit.postgres.connect import connect
from opskit.postgres.database import drop
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, failed, run_drill, sets, value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opskit.postgres.servers.programs import Installation
    from opskit.postgres.servers.throwaway import Server
    from tests.conftest import MajorServer, MakeDatabase

GRANTS = """
CREATE TABLE public.t (id int, n int);
INSERT INTO public.t VALUES (1, 2);
CREATE VIEW public.v AS SELECT 1 AS one;
DO $$ BEGIN CREATE ROLE granted; EXCEPTION WHEN duplicate_object THEN END $$;
DO $$ BEGIN CREATE ROLE partly; EXCEPTION WHEN duplicate_object THEN END $$;
GRANT ALL ON public.t TO granted WITH GRANT OPTION;
GRANT ALL ON public.v TO public;
GRANT SELECT, DELETE ON public.t TO partly;
GRANT ALL (n) ON public.t TO partly;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO granted;
"""


@pytest.fixture
def newest(server_of: MajorServer) -> Iterator[Server]:
    """A server of 18; what a test restores into it is dropped."""
    running = server_of(18)
    yield running
    with connect(running.url(), purpose="test") as connection:
        drop(connection, "back")


@pytest.mark.parametrize("major", [15, 16])
def test_all_means_what_it_meant_in_the_source(
    make_database: MakeDatabase, newest: Server, store_dir: Path, major: int
) -> None:
    """A grant of ALL holds MAINTAIN since 17."""
    back_up(make_database(major, script=GRANTS), store_dir)

    result = run_restore(sets(store_dir)[0], newest, "back")

    assert all(check.passed for check in result.checks)
    held = "SELECT has_table_privilege('granted', 'public.t', 'MAINTAIN')"
    assert value(newest.url("back"), held)


def test_all_means_what_it_meant_in_a_drill(
    make_database: MakeDatabase, store_dir: Path, installations: list[Installation]
) -> None:
    """Also where the definitions are compared to the letter."""
    back_up(make_database(16, script=GRANTS), store_dir)
    newer = [each for each in installations if each.major >= 18]

    evidence = run_drill(
        sets(store_dir)[0], installations=newer, accept_newer_major=True
    )

    assert evidence.passed, failed(evidence)


def test_a_privilege_that_nobody_granted_is_a_difference(
    make_database: MakeDatabase, store_dir: Path, installations: list[Installation]
) -> None:
    """Only who had all of the older ones may have the newer one."""
    back_up(make_database(16, script=GRANTS), store_dir)
    newer = [each for each in installations if each.major >= 18]

    evidence = run_drill(
        sets(store_dir)[0],
        installations=newer,
        accept_newer_major=True,
        tamper=lambda url: execute(url, "GRANT MAINTAIN ON public.t TO partly"),
    )

    assert "grants" in [each.name for each in failed(evidence)]
