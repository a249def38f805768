"""What Prometheus reads: names and labels that others rely on, in a form it takes."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from opskit.checks import Health, worst
from opskit.config import Settings
from opskit.watch import metrics
from opskit.watch.health import checks
from opskit.watch.state import Room, State, StoreState
from tests.unit import states, stock

ROOT = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
# By the contract: each with its labels.
CONTRACT = {
    "opskit_backup_last_success_timestamp_seconds": {"source", "store"},
    "opskit_backup_last_run_timestamp_seconds": {"source"},
    "opskit_backup_duration_seconds": {"source"},
    "opskit_backup_size_bytes": {"source"},
    "opskit_drill_last_success_timestamp_seconds": {"source"},
    "opskit_drill_rto_seconds": {"source"},
    "opskit_source_max_age_seconds": {"source"},
    "opskit_source_expected_interval_seconds": {"source"},
    "opskit_runs_missed_total": {"source"},
    "opskit_ledger_intact": set(),
    "opskit_sets": {"source", "store"},
}


def rendered(state: State) -> str:
    """Return the text of a state."""
    return metrics.render(state, worst(checks(state, Settings()))).decode()


def samples(state: State) -> Samples:
    """Return every sample by its name and labels."""
    return {
        (each.name, frozenset(each.labels.items())): each.value
        for family in text_string_to_metric_families(rendered(state))
        for each in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """Return the value of one sample."""
    return found[f"opskit_{name}", frozenset(labels.items())]


def test_every_metric_of_the_contract_is_there_for_every_source_and_store() -> None:
    """A rule that names one finds it, with these labels and no others."""
    found = samples(states.well())

    for name, labels in CONTRACT.items():
        those = [dict(each) for known, each in found if known == name]
        assert all(set(each) == labels for each in those), name
        for label, expected in (
            ("source", {"shop", "uploads"}),
            ("store", {"local", "offsite"}),
        ):
            if label in labels:
                assert {each[label] for each in those} - {""} == expected, name


def test_promtool_has_nothing_to_say() -> None:
    """Of a state that is well, a sick one, and an empty one."""
    empty = states.state_of([], stores=(), memory=None, disks=())
    for state in (states.well(), states.sick(), empty):
        assert not stock.run(
            "promtool", "check", "metrics", stdin=rendered(state).encode()
        )


def test_the_figures_are_those_of_the_state() -> None:
    """Of the newest run, set and drill; of times, the one at the end."""
    state = states.well()
    shop = state.sources[0]
    found = samples(state)
    run, drill = shop.backups[-1], shop.drills[0]

    for name, expected in (
        ("backup_duration_seconds", run.seconds),
        ("backup_size_bytes", shop.sets[0].size_bytes),
        ("backup_last_run_succeeded", 1),
        ("drill_last_success_timestamp_seconds", drill.finished_at.timestamp()),
        ("drill_rto_seconds", drill.rto_seconds),
        ("source_max_age_seconds", 26 * 3600),
        ("source_expected_interval_seconds", 86_400),
        ("runs_missed_total", 1),
    ):
        assert value(found, name, source="shop") == expected, name
    success = value(
        found,
        "backup_last_success_timestamp_seconds",
        source="shop",
        store="offsite",
    )
    assert success == shop.last_success["offsite"].timestamp()
    phase = value(found, "drill_phase_duration_seconds", source="shop", phase="fetch")
    assert phase == drill.phases["fetch"]
    assert value(found, "sets", source="shop", store="local") == len(shop.sets)
    assert value(found, "health_status") == 0


def test_missed_runs_are_counted_from_zero() -> None:
    """Also those about every source: an increase needs a value before the first."""
    found = samples(states.well())

    assert value(found, "runs_missed_total", source="") == 0
    assert value(found, "runs_missed_total", source="uploads") == 0


def test_an_address_that_somebody_asked_once_is_no_source() -> None:
    """Each would be a series of its own, for ever."""
    records = states.Records(list(states.well().entries))
    records.add(states.NOW, "smoke", source="http://elsewhere")
    records.add(states.NOW, "smoke")
    found = samples(replace(states.well(), entries=records.in_order()))

    labels = {"operation": "smoke", "outcome": "ok"}
    assert value(found, "runs_total", source="", **labels) == 1
    assert not [each for _, each in found if ("source", "http://elsewhere") in each]


def test_a_sick_state_shows_in_the_metrics() -> None:
    """The store that is away has no number of sets: nobody knows it."""
    found = samples(replace(states.sick(), ledger_faults=("record 3 was changed",)))

    assert value(found, "ledger_intact") == 0
    assert value(found, "health_status") == list(Health).index(Health.UNHEALTHY)
    assert value(found, "drill_last_run_passed", source="shop") == 0
    assert value(found, "backup_last_run_succeeded", source="shop") == 0
    last = {"source": "shop", "operation": "backup"}
    assert value(found, "last_run_succeeded", **last) == 0
    ended = states.sick().sources[0].backups[-1].time
    assert value(found, "last_run_timestamp_seconds", **last) == pytest.approx(
        datetime.fromisoformat(ended).timestamp()
    )
    assert value(found, "runs_missed_total", source="shop") == 2
    assert value(found, "store_reachable", store="offsite") == 0
    away = frozenset({("source", "shop"), ("store", "offsite")})
    assert ("opskit_sets", away) not in found


def test_no_sample_has_a_timestamp() -> None:
    """node_exporter leaves out a whole file in which one has."""
    for line in rendered(states.sick()).splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"\w+(\{.*\})? \S+", line), line


def test_names_with_quotes_and_lines_do_not_break_the_text() -> None:
    """Whatever a store or a folder is called."""
    odd = 'a "b"\n\\c'
    state = replace(states.well(), stores=(StoreState(name=odd),))

    assert value(samples(state), "store_reachable", store=odd) == 1
    assert not stock.run("promtool", "check", "metrics", stdin=rendered(state).encode())


def test_a_folder_with_two_roles_is_one_disk() -> None:
    """Prometheus refuses a sample that stands there twice."""
    first, second = (
        Room(name="/backups", free_bytes=free, total_bytes=9) for free in (4, 5)
    )
    store = StoreState(name="local", disk=second)
    text = rendered(replace(states.well(), stores=(store,), disks=(first,)))

    assert len(re.findall(r"^opskit_disk_free_bytes\{", text, re.MULTILINE)) == 1


def test_what_is_not_known_is_left_out() -> None:
    """A source without a schedule has no interval, one without a drill no RTO."""
    shop = replace(
        states.well().sources[0], interval_seconds=None, drills=(), sets=(), runs=()
    )
    found = samples(states.state_of([shop], entries=()))

    names = {name for name, _labels in found}
    assert "opskit_source_max_age_seconds" in names
    assert not names & {
        "opskit_source_expected_interval_seconds",
        "opskit_drill_rto_seconds",
        "opskit_backup_size_bytes",
        "opskit_backup_duration_seconds",
    }


def test_ages_are_not_metrics_but_times() -> None:
    """An hour later the same state has the same metrics, but for its own time."""
    state = states.well()
    later = replace(state, time=state.time + timedelta(hours=1))
    changed = set(samples(state).items()) ^ set(samples(later).items())

    assert {name for (name, _labels), _value in changed} == {
        "opskit_state_timestamp_seconds"
    }


def test_the_document_lists_every_metric_and_no_other() -> None:
    """With the names that Prometheus shows."""
    document = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    section = document.partition("## GET /metrics")[2].partition("\n## ")[0]
    sent = states.Records().add(states.NOW, "notify", receiver="mail")
    sick = states.sick()
    entries = (*sick.entries, sent)
    alone = replace(sick, entries=entries, notified={"mail": sent})
    text = rendered(alone) + rendered(states.sick_fleet(3))

    assert set(re.findall(r"`(opskit_\w+)`", section)) == set(
        re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    )
