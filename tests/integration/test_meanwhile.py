"""Tables that are compared while others are still loaded, in real drills."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from opskit.restore.meanwhile import Meanwhile
from tests.conftest import MakeDatabase
from tests.support import back_up, execute, failed, run_drill, sets

TABLES = "".join(
    f"CREATE TABLE public.t{n} AS SELECT i, md5(i::text) t FROM generate_series(1, 2000) i;"
    f"CREATE INDEX ON public.t{n} (t);"
    for n in range(6)
)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[Collection[object]]:
    """Return what drills found equal before the load had ended."""
    found: list[Collection[object]] = []
    original = Meanwhile.settle

    def settle(self: Meanwhile):
        found.append(original(self))
        return found[-1]

    monkeypatch.setattr(Meanwhile, "settle", settle)
    return found


def test_tables_are_compared_while_others_are_loaded(
    make_database: MakeDatabase, store_dir: Path, settled: list[Collection[object]]
) -> None:
    """The drill passes, and some tables were equal before all was loaded."""
    url = make_database(16)
    execute(url, TABLES)
    back_up(url, store_dir)
    evidence = run_drill(sets(store_dir)[0])

    assert failed(evidence) == []
    assert len(settled) == 1
    assert len(settled[0]) > 0


def test_a_table_that_differs_fails_the_drill_though_others_were_equal(
    make_database: MakeDatabase, store_dir: Path, settled: list[Collection[object]]
) -> None:
    """What is not equal meanwhile is compared again, and named."""
    url = make_database(16)
    execute(url, TABLES)
    made = back_up(url, store_dir).manifest
    path = store_dir / made.prefix / "manifest.json"
    document = json.loads(path.read_text())
    (wrong,) = [each for each in document["tables"] if each["name"] == "t3"]
    wrong["digest"] = "0" * 32
    path.write_text(json.dumps(document))
    evidence = run_drill(sets(store_dir)[0])

    assert [check.name for check in failed(evidence)] == ["table public.t3"]
    assert len(settled[0]) > 0


def test_where_a_view_is_filled_everything_is_read_at_the_end(
    make_database: MakeDatabase, store_dir: Path, settled: list[Collection[object]]
) -> None:
    """What runs then may change rows that were read before."""
    url = make_database(16)
    execute(
        url,
        TABLES + "CREATE MATERIALIZED VIEW public.v AS SELECT count(*) FROM public.t0;",
    )
    back_up(url, store_dir)
    evidence = run_drill(sets(store_dir)[0])

    assert failed(evidence) == []
    assert len(settled[0]) == 0


def test_a_restore_that_failed_took_no_time(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """There is no RTO where nothing came back."""
    url = make_database(16)
    execute(
        url,
        "CREATE TABLE public.t (id int);INSERT INTO public.t VALUES (1);",
    )
    back_up(url, store_dir)
    evidence = run_drill(
        sets(store_dir)[0], sql_before=["CREATE TABLE public.t (id int)"]
    )

    assert [check.name for check in failed(evidence)] == ["restore"]
    assert evidence.rto_seconds is None
