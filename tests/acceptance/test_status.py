"""The health of everything that is watched, as a person and as Prometheus see it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from tests.acceptance.conftest import Project
from tests.unit import stock


def _health(project: Project, code: int) -> dict[str, str]:
    """Return the status of each check, expecting an exit code."""
    document = project.json("status", code=code)
    assert document["status"] == {0: "healthy", 3: "degraded", 4: "unhealthy"}[code]
    for each in document["checks"]:
        assert set(each) == {"name", "status", "observed", "limit", "hint"}
        assert (each["status"] == "healthy") or each["hint"]
    return {each["name"]: each["status"] for each in document["checks"]}


def test_status_follows_what_happens_to_sets_stores_and_ledger(
    project: Project,
) -> None:
    """From no set at all to health, and from there to each thing that may go wrong."""
    assert _health(project, 4)["database shop: newest set in local"] == "unhealthy"
    project.run("backup")
    project.run("restore-drill")
    assert set(_health(project, 0).values()) == {"healthy"}
    project.environment["OPSKIT_DRILL__MAX_AGE"] = "0s"
    shown = project.run("status", code=3)
    assert "healthy   database shop: connection: answered in" in shown
    assert "degraded  database shop: newest drill that passed: " in shown

    project.store.rename(project.folder / "away")
    ledger = project.folder / ".opskit" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"ok"', '"failed"', 1))
    project.configure(url="postgresql://nobody@127.0.0.1:1/shop")
    sick = _health(project, 4)
    for name in ("store local", "ledger", "database shop: connection"):
        assert sick[name] == "unhealthy"
    # The ledger remembers what a store has got that is away.
    assert sick["database shop: newest set in local"] == "healthy"


def test_each_run_writes_the_metrics_into_a_file(project: Project) -> None:
    """node_exporter can read it; where it cannot be written the backup is no worse."""
    path = project.folder / "metrics" / "opskit.prom"
    section = f"[scheduler]\ntextfile = {json.dumps(str(path))}\n"
    project.configure(section)

    project.run("backup")

    assert not path.exists()
    assert "an observer failed" in project.errors
    path.parent.mkdir()
    project.run("restore-drill")
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [*path.parent.iterdir()] == [path]
    assert 'opskit_drill_last_run_passed{source="shop"} 1.0' in text
    assert 'opskit_sets{source="shop",store="local"} 1.0' in text
    assert not stock.run("promtool", "check", "metrics", stdin=text.encode())


def test_a_file_that_would_not_be_collected_is_refused(
    project: Project, tmp_path: Path
) -> None:
    """node_exporter reads files that end in .prom."""
    project.configure(f'[scheduler]\ntextfile = "{tmp_path}/opskit.txt"\n')

    assert "ends in .prom" in project.json("status", code=2)["error"]
