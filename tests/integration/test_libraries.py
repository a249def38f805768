"""Libraries that the source preloads for its extensions: preloaded in the drill too."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.config import Query
from opskit.postgres import extensions as postgres_extensions
from opskit.postgres.connect import connect
from opskit.postgres.servers import programs, throwaway
from tests.conftest import majors
from tests.support import back_up, execute, run_drill, sets

pytestmark = pytest.mark.skipif(
    15 not in majors(), reason="no installed PostgreSQL with such libraries"
)
_PRELOADED = "SHOW shared_preload_libraries"


def test_a_drill_preloads_what_the_set_needs_and_starts_no_workers(
    store_dir: Path,
) -> None:
    """Views that work only with a preloaded library work in the copy."""
    found = programs.find_server(programs.installations(), major=15)
    preloading = {"shared_preload_libraries": "pg_stat_statements, pg_prewarm"}
    with throwaway.throwaway(found, settings=preloading) as running:
        url = running.url()
        execute(
            url,
            "CREATE EXTENSION pg_stat_statements SCHEMA public; CREATE EXTENSION pg_prewarm SCHEMA public; "
            "CREATE TABLE public.t (i int); INSERT INTO public.t VALUES (1)",
        )
        back_up(url, store_dir)
    queries = [
        Query(name="preloaded", sql=_PRELOADED, expect="pg_stat_statements,pg_prewarm"),
        Query(
            name="works",
            sql="SELECT count(*) >= 0 FROM public.pg_stat_statements",
            expect=True,
        ),
        Query(
            name="no workers",
            sql="SELECT count(*) FROM pg_stat_activity "
            "WHERE backend_type LIKE '%worker%' OR backend_type LIKE '%leader%'",
            expect=0,
        ),
    ]

    evidence = run_drill(sets(store_dir)[0], queries=queries)

    assert evidence.failed == []
    assert evidence.passed


def test_a_library_that_cannot_be_loaded_is_told_from_one_that_can() -> None:
    """Whether it is preloaded, or can be loaded by a session."""
    found = programs.find_server(programs.installations(), major=15)
    preloading = {"shared_preload_libraries": "pg_stat_statements"}
    with (
        throwaway.throwaway(found, settings=preloading) as running,
        connect(running.url(), purpose="test") as connection,
    ):
        assert postgres_extensions.is_usable(connection, "pg_stat_statements")
        assert postgres_extensions.is_usable(connection, "auto_explain")
        assert not postgres_extensions.is_usable(connection, "no_such_library")
