"""Every alert rule before promtool: it fires when it should, and only then."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opskit.config import Settings
from opskit.watch.rules import render
from tests.unit import stock
from tests.unit.test_rules import alerts

SETTINGS = Settings.model_validate(
    {
        "databases": {"shop": {"url": "postgresql://ops@db.example/shop"}},
        "files": {"state": {"path": "/srv/state"}},
        "stores": {"local": {"url": "file:///srv/store"}},
        "fleet": {"url": "postgresql://ops@queue.example/fleet"},
        "slo": {
            "availability": 99.9,
            "latency": {"p95": "1.2s", "p99": "2s"},
            "error_rate": 0.01,
            "labels": {"job": "shop"},
        },
    }
)
ALERTS = alerts(SETTINGS)
HOUR, DAY = 60, 24 * 60  # in minutes


@dataclass(frozen=True)
class Case:
    """Series, by the step in minutes; when they are looked at; whose alerts fire then.

    promtool's clock begins with 1970: a value of 0 is a time then.
    """

    alert: str
    about: str
    series: dict[str, str]
    minute: int
    fires: tuple[str, ...] = ()
    step: int = 1


@dataclass(frozen=True)
class Traffic:
    """Requests of which a share misses an objective; before, none did at ten times."""

    share: float
    before: int = 0  # steps
    each: float = 1000  # requests a step

    def counter(self, share: float, *, good: bool) -> str:
        """Return the values of a counter of a share of the requests."""
        until = 10 * self.each * self.before if good else 0
        first = (
            f"0+{10 * self.each if good else 0:g}x{self.before} " if self.before else ""
        )
        rate = self.each * share
        return f"{first}{until + rate:.6f}+{rate:.6f}x500"

    def statuses(self, status: str) -> dict[str, str]:
        """Return requests of which the share ended with a status."""
        name = "http_requests_total"
        return {
            f'{name}{{job="shop", status="200"}}': self.counter(
                1 - self.share, good=True
            ),
            f'{name}{{job="shop", status="{status}"}}': self.counter(
                self.share, good=False
            ),
            # Another service, which is well.
            f'{name}{{job="blog", status="200"}}': "0+999999x500",
        }

    def answers(self) -> dict[str, str]:
        """Return a histogram whose bounds are not the objectives."""
        name = "http_request_duration_seconds"
        return {
            f'{name}_bucket{{job="shop", le="1"}}': self.counter(
                1 - self.share, good=True
            ),
            f'{name}_bucket{{job="shop", le="10"}}': self.counter(1, good=True),
            f'{name}_bucket{{job="shop", le="+Inf"}}': self.counter(1, good=True),
            f'{name}_count{{job="shop"}}': self.counter(1, good=True),
            f'{name}_bucket{{job="blog", le="1"}}': "0+999999x500",
            f'{name}_bucket{{job="blog", le="+Inf"}}': "0+999999x500",
        }

    def missing(self, objective: str) -> dict[str, str]:
        """Return the series of an objective."""
        if objective.startswith("Latency"):
            return self.answers()
        return self.statuses("429" if objective == "RateLimit" else "500")


# What an objective may miss. A bound below it makes some slow answers count as fast.
BUDGETS = {
    "Availability": 0.001,
    "ErrorRate": 0.01,
    "LatencyP95": 0.05 * 9 / 8.8,
    "LatencyP99": 0.01 * 9 / 8,
    "RateLimit": 0.05,
}
# By speed: how many times as fast as allowed, for how long, and the steps.
PAIRS = [
    ("Fast", 14.4, 1 * HOUR, 5 * HOUR, 1),
    ("Fast", 6.0, 6 * HOUR, 0, 1),
    ("Slow", 3.0, 1 * DAY, 2 * DAY, 10),
    ("Slow", 1.0, 3 * DAY, 0, 10),
]


def burning(objective: str) -> list[Case]:
    """Return what is a little above and below what each pair of windows allows.

    The traffic before keeps the other pair of the same alert out of it.
    """
    return [
        Case(
            f"Service{objective}{speed}Burn",
            f"{much} times {factor}",
            Traffic(BUDGETS[objective] * factor * much, before // step).missing(
                objective
            ),
            before + minutes + 10 * step,
            ("",) if much > 1 else (),
            step,
        )
        for speed, factor, minutes, before, step in PAIRS
        for much in (1.1, 0.9)
    ]


def last_success(**stores: str) -> dict[str, str]:
    """Return when the newest set of a source was finished in each store."""
    name = "opskit_backup_last_success_timestamp_seconds"
    return {
        f'{name}{{source="shop", store="{store}"}}': values
        for store, values in stores.items()
    }


def on_hosts(series: str, standby: str, leader: str) -> dict[str, str]:
    """Return a series of each of two schedulers."""
    return {
        series.replace("}", ', instance="standby"}'): standby,
        series.replace("}", ', instance="leader"}'): leader,
    }


SHOP = 'source="shop"'
MAX_AGE = f"opskit_source_max_age_seconds{{{SHOP}}}"
MAX_AGES = {
    MAX_AGE: "93600x9000",
    'opskit_source_max_age_seconds{source="state"}': "7200x9000",
}
MAX_DRILL_AGE = f"opskit_drill_max_age_seconds{{{SHOP}}}"
DRILLED = {
    f"opskit_drill_last_success_timestamp_seconds{{{SHOP}}}": "0x9000",
    MAX_DRILL_AGE: "172800x9000",
}
LAST = f"opskit_backup_last_run_timestamp_seconds{{{SHOP}}}"
LAST_RUN = {LAST: "0x9000"}
INTERVAL = f"opskit_source_expected_interval_seconds{{{SHOP}}}"
MISSED = f"opskit_runs_missed_total{{{SHOP}}}"
RUN = {
    MISSED: "3x9000",
    LAST: "0x9000",
    INTERVAL: "86400x9000",
}
PASSED = "opskit_drill_last_run_passed"
CHANGES = f"opskit_backup_sudden_changes{{{SHOP}}}"
READABLE = f"opskit_source_reachable{{{SHOP}}}"
LABELLED = 'label="eu"'
QUEUE = "opskit_fleet_queue_reachable"
WORKERS = "opskit_fleet_workers"
SERVING = f"opskit_fleet_label_workers{{{LABELLED}}}"
WAITING = f'opskit_fleet_jobs{{{LABELLED}, state="todo"}}'
GONE = f'opskit_fleet_source_gone{{{SHOP}, rule="customers"}}'
RULE = 'opskit_fleet_rule_failing{rule="customers"}'
LATE = "opskit_fleet_jobs_late"
REACHABLE = 'opskit_store_reachable{store="far"}'
LATENCY = 'opskit_store_latency_seconds{store="far"}'
FREE = 'opskit_disk_free_bytes{path="/srv"}'
SIZE = {'opskit_disk_size_bytes{path="/srv"}': "100x99"}
SETS = f'opskit_sets{{{SHOP}, store="far"}}'
SUCCEEDED = f"opskit_backup_last_run_succeeded{{{SHOP}}}"
VERIFIED = 'opskit_last_run_succeeded{source="", operation="verify"}'
VERIFIED_AT = 'opskit_last_run_timestamp_seconds{source="", operation="verify"}'
HEALTH = "opskit_health_status"
LEDGER = "opskit_ledger_intact"
SENT = "opskit_notification_last_succeeded"
CASES = [
    Case("OpskitFleetQueueUnreachable", "away", {QUEUE: "0x99"}, 11, ("",)),
    Case("OpskitFleetQueueUnreachable", "back", {QUEUE: "0x5 1x99"}, 11),
    Case(
        "OpskitFleetWithoutWorkers",
        "the last one has died",
        {
            f'{WORKERS}{{state="working"}}': "1 0x99",
            f'{WORKERS}{{state="dead"}}': "1x99",
        },
        17,
        ("",),
    ),
    Case(
        "OpskitFleetWithoutWorkers",
        "another has started",
        {f'{WORKERS}{{state="working"}}': "0x5 1x99"},
        17,
    ),
    Case(
        "OpskitFleetLabelUnserved",
        "its jobs wait",
        {SERVING: "0x99", WAITING: "3x99"},
        16,
        (LABELLED,),
    ),
    Case(
        "OpskitFleetLabelUnserved",
        "nothing is due",
        {SERVING: "0x99", WAITING: "0x99"},
        16,
    ),
    Case("OpskitFleetRuleFailing", "away", {RULE: "1x99"}, 16, ('rule="customers"',)),
    Case("OpskitFleetRuleFailing", "back", {RULE: "1x9 0x99"}, 16),
    Case(
        "OpskitFleetSourceGone",
        "not confirmed",
        {GONE: "1x99"},
        1,
        (f'{SHOP}, rule="customers"',),
    ),
    Case("OpskitFleetSourceGone", "confirmed", {GONE: "1 _x99"}, 7),
    Case("OpskitFleetBehind", "two jobs", {LATE: "2x99"}, 16, ("",)),
    Case("OpskitFleetBehind", "for a moment", {LATE: "2x5 0x99"}, 16),
    Case(
        "OpskitBackupStale",
        "one store lags behind",
        MAX_AGES | last_success(near="0+60x9000", far="0x9000"),
        27 * HOUR,
        (f'{SHOP}, store="far"',),
    ),
    Case(
        "OpskitBackupStale",
        "in time",
        MAX_AGES | last_success(near="0x9000"),
        26 * HOUR,
    ),
    Case("OpskitBackupMissing", "none", {SETS: "0x99"}, 61, (f'{SHOP}, store="far"',)),
    Case("OpskitBackupMissing", "one since", {SETS: "0x59 1x99"}, 61),
    Case("OpskitBackupFailed", "failed", LAST_RUN | {SUCCEEDED: "1 0x9"}, 6, (SHOP,)),
    Case("OpskitBackupFailed", "succeeded since", LAST_RUN | {SUCCEEDED: "0x3 1x9"}, 6),
    Case(
        "OpskitBackupFailed",
        "a standby's run of long ago",
        on_hosts(SUCCEEDED, "0x99", "1x99") | on_hosts(LAST, "5x99", "600x99"),
        30,
    ),
    Case(
        "OpskitBackupFailed",
        "of the leader",
        on_hosts(SUCCEEDED, "1x99", "0x99") | on_hosts(LAST, "5x99", "600x99"),
        30,
        (f'{SHOP}, instance="leader"',),
    ),
    Case(
        "OpskitRunFailed",
        "a prune, while a verification succeeded",
        {
            VERIFIED: "1x9",
            VERIFIED_AT: "60x9",
            VERIFIED.replace("verify", "prune"): "1 0x9",
            VERIFIED_AT.replace("verify", "prune"): "60x9",
        },
        6,
        ('source="", operation="prune"',),
    ),
    Case(
        "OpskitRunFailed",
        "succeeded since",
        {VERIFIED: "0x3 1x9", VERIFIED_AT: "60x9"},
        6,
    ),
    Case(
        "OpskitRunFailed",
        "a standby's run of long ago",
        on_hosts(VERIFIED, "0x99", "1x99") | on_hosts(VERIFIED_AT, "5x99", "600x99"),
        30,
    ),
    Case(
        "OpskitRunFailed",
        "a backup, which has an alert of its own",
        {
            VERIFIED.replace("verify", "backup"): "0x99",
            VERIFIED_AT.replace("verify", "backup"): "60x99",
        },
        30,
    ),
    Case(
        "OpskitRunMissed",
        "by a standby that does not run",
        on_hosts(LAST, "0x3000", "0+60x3000")
        | on_hosts(INTERVAL, "86400x3000", "86400x3000"),
        40 * HOUR,
    ),
    Case("OpskitRunMissed", "one", {MISSED: "0x60 1x99"}, 70, (SHOP,)),
    Case("OpskitRunMissed", "nobody noticed", RUN, 36 * HOUR + 10, (SHOP,)),
    Case("OpskitRunMissed", "within the grace", RUN, 36 * HOUR),
    Case("OpskitDrillStale", "too late", DRILLED, 49 * HOUR, (SHOP,)),
    Case("OpskitDrillStale", "in time", DRILLED, 48 * HOUR),
    Case(
        "OpskitDrillMissing", "never", {MAX_DRILL_AGE: "1x2000"}, 9 * DAY, (SHOP,), 10
    ),
    Case("OpskitDrillMissing", "not yet", {MAX_DRILL_AGE: "1x2000"}, 7 * DAY, (), 10),
    Case("OpskitDrillMissing", "once", DRILLED, 9 * DAY, (), 10),
    Case(
        "OpskitDrillFailed",
        "of one source",
        {f"{PASSED}{{{SHOP}}}": "1 0x9", f'{PASSED}{{source="state"}}': "1x9"},
        5,
        (SHOP,),
    ),
    Case("OpskitDrillFailed", "passed since", {f"{PASSED}{{{SHOP}}}": "0 1x9"}, 5),
    Case("OpskitBackupChanged", "changed", {CHANGES: "0 2x9"}, 5, (SHOP,)),
    Case("OpskitBackupChanged", "confirmed", {CHANGES: "2 0x9"}, 5),
    Case("OpskitAbsent", "one", MAX_AGES | {MAX_AGE: "1x20 _x99"}, 40, (SHOP,)),
    Case("OpskitAbsent", "all", {}, 20, (SHOP, 'source="state"')),
    Case("OpskitAbsent", "none", MAX_AGES, 20),
    Case("OpskitUnhealthy", "unhealthy", {HEALTH: "2x99"}, 20, ("",)),
    Case("OpskitUnhealthy", "degraded", {HEALTH: "1x99"}, 20),
    Case("OpskitSourceUnreachable", "gone", {READABLE: "1 0x99"}, 20, (SHOP,)),
    Case("OpskitSourceUnreachable", "for moments", {READABLE: "0x8 1 0x8"}, 17),
    Case("OpskitStoreUnreachable", "gone", {REACHABLE: "1 0x99"}, 20, ('store="far"',)),
    Case("OpskitStoreUnreachable", "for moments", {REACHABLE: "0x8 1 0x8"}, 17),
    Case("OpskitStoreSlow", "for an hour", {LATENCY: "9x99"}, 60, ('store="far"',)),
    Case("OpskitStoreSlow", "for moments", {LATENCY: "1x20 9x3 1x40"}, 40),
    Case(
        "OpskitDiskFilling", "nine percent", SIZE | {FREE: "9x99"}, 30, ('path="/srv"',)
    ),
    Case("OpskitDiskFilling", "ten percent", SIZE | {FREE: "10x99"}, 30),
    Case("OpskitLedgerBroken", "broken", {LEDGER: "1 0x9"}, 5, ("",)),
    Case("OpskitLedgerBroken", "intact", {LEDGER: "1x9"}, 5),
    Case(
        "OpskitNotificationsFailing",
        "one receiver",
        {f'{SENT}{{receiver="mail"}}': "0x99", f'{SENT}{{receiver="hook"}}': "1x99"},
        30,
        ('receiver="mail"',),
    ),
    Case(
        "OpskitNotificationsFailing",
        "again",
        {f'{SENT}{{receiver="mail"}}': "0x10 1x99"},
        30,
    ),
    *(case for objective in BUDGETS for case in burning(objective)),
    Case("ServiceAvailabilityFastBurn", "too few", Traffic(1, each=1).missing(""), 90),
    Case(
        "ServiceAvailabilityFastBurn",
        "enough",
        Traffic(1, each=1).missing(""),
        130,
        ("",),
    ),
    Case("ServiceLatencyP95FastBurn", "too few", Traffic(1, each=1).answers(), 90),
    Case(
        "ServiceLatencyP95FastBurn", "enough", Traffic(1, each=1).answers(), 130, ("",)
    ),
    Case(
        "ServiceAvailabilityFastBurn",
        "over for half an hour",
        {
            'http_requests_total{job="shop", status="200"}': "0x60 1000+1000x500",
            'http_requests_total{job="shop", status="500"}': "0+1000x60 60000x500",
        },
        92,
    ),
]


def unit_test(case: Case) -> dict[str, Any]:
    """Return a case in the form of promtool."""
    alert = ALERTS[case.alert]
    labels = alert["labels"].items()
    common = ", ".join(f"{name}={json.dumps(value)}" for name, value in labels)
    firing = f'ALERTS{{alertname="{case.alert}", alertstate="firing"'
    return {
        "name": case.about,
        "interval": f"{case.step}m",
        "input_series": [
            {"series": series, "values": values}
            for series, values in case.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"{firing}}}",
                "eval_time": f"{case.minute}m",
                "exp_samples": [
                    {"labels": f"{firing}, {common}, {own}}}", "value": 1}
                    for own in case.fires
                ],
            }
        ],
    }


def unit_tests(
    tmp_path: Path, alert: str, tests: list[dict[str, Any]], step: int = 1
) -> Path:
    """Write tests of one rule; with the others, each would be evaluated as often."""
    rules, path = tmp_path / "rules.yml", tmp_path / "test.yml"
    alone = {"groups": [{"name": "alone", "rules": [ALERTS[alert]]}]}
    rules.write_text(json.dumps(alone), encoding="utf-8")
    content = {
        "rule_files": [str(rules)],
        "evaluation_interval": f"{step}m",
        "tests": tests,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_rules_are_rules(tmp_path: Path) -> None:
    """Promtool reads the file, with its templates, and counts every rule."""
    path = tmp_path / "rules.yml"
    path.write_text(render(SETTINGS), encoding="utf-8")
    said = stock.run("promtool", "check", "rules", path)

    assert f"{len(ALERTS)} rules found" in said.decode()


def opskit(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run opskit in a folder, and return what it printed."""
    (folder / "opskit.toml").write_text('[files.state]\npath = "/srv/state"\n')
    done = subprocess.run(
        [sys.executable, "-m", "opskit", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_task_prints_a_file_for_prometheus(tmp_path: Path) -> None:
    """What it prints is the whole file and nothing else; no store is needed for it."""
    path = tmp_path / "rules.yml"
    path.write_text(opskit(tmp_path, "rules"))

    assert b"SUCCESS" in stock.run("promtool", "check", "rules", path)


@pytest.mark.parametrize("name", ["opskit", "service"])
def test_the_task_prints_a_dashboard(name: str, tmp_path: Path) -> None:
    """It is one JSON document; another name is refused."""
    assert json.loads(opskit(tmp_path, "rules", "--dashboard", name))["panels"]
    assert opskit(tmp_path, "rules", "--dashboard", f"{name}s", code=2) == ""


@pytest.mark.parametrize("alert", ALERTS)
def test_a_rule_fires_when_it_should(alert: str, tmp_path: Path) -> None:
    """Every alert has series that it fires on, and series that it is silent on."""
    cases = [case for case in CASES if case.alert == alert]
    path = unit_tests(
        tmp_path, alert, [unit_test(case) for case in cases], cases[0].step
    )

    assert {bool(case.fires) for case in cases} == {True, False}
    stock.run("promtool", "test", "rules", path)


@pytest.mark.parametrize("source", ["shop", ""])
def test_a_missed_run_of_no_source_is_said_too(source: str, tmp_path: Path) -> None:
    """Prune and reports are about every source; their text has no gap."""
    about = f"A run of {source}" if source else "A run"
    test = {
        "interval": "1m",
        "input_series": [
            {
                "series": f'opskit_runs_missed_total{{source="{source}"}}',
                "values": "0x60 1x99",
            }
        ],
        "alert_rule_test": [
            {
                "eval_time": "70m",
                "alertname": "OpskitRunMissed",
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "warning"}
                        | ({"source": source} if source else {}),
                        "exp_annotations": {
                            "summary": f"{about} was missed",
                            "description": f"{about} was due and did not start in time.",
                            "runbook_url": "runbooks/backup-failing.md",
                        },
                    }
                ],
            }
        ],
    }

    stock.run(
        "promtool", "test", "rules", unit_tests(tmp_path, "OpskitRunMissed", [test])
    )


@pytest.mark.parametrize(
    ("operation", "runbook"),
    [("verify", "store-failing"), ("prune", "backup-failing")],
)
def test_a_failed_verification_links_what_to_do_about_a_store(
    operation: str, runbook: str, tmp_path: Path
) -> None:
    """Prometheus fills in the address of the runbook by the operation."""
    labels = f'{{source="", operation="{operation}"}}'
    about = f"The last {operation} failed"
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f"opskit_last_run_succeeded{labels}", "values": "0x9"},
            {"series": f"opskit_last_run_timestamp_seconds{labels}", "values": "60x9"},
        ],
        "alert_rule_test": [
            {
                "eval_time": "6m",
                "alertname": "OpskitRunFailed",
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "warning", "operation": operation},
                        "exp_annotations": {
                            "summary": about,
                            "description": f"{about}, or did not do all that it should.",
                            "runbook_url": f"runbooks/{runbook}.md",
                        },
                    }
                ],
            }
        ],
    }

    stock.run(
        "promtool", "test", "rules", unit_tests(tmp_path, "OpskitRunFailed", [test])
    )
