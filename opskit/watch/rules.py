"""Prometheus alert rules, written from the configuration."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from opskit.config import Settings
from opskit.config.section import format_duration
from opskit.config.watch import SloSettings
from opskit.watch.slo import Objective, ServiceQueries, objectives

# Pairs of windows, and how many times as fast as allowed an error budget of 30 days is
# used up in both: the values of Google's "The Site Reliability Workbook".
_BURN = {
    "Fast": (
        ("critical", "2m", "within five days"),
        (("1h", "5m", 14.4), ("6h", "30m", 6.0)),
    ),
    "Slow": (
        ("warning", "15m", "before they end"),
        (("1d", "2h", 3.0), ("3d", "6h", 1.0)),
    ),
}
# A large budget times its factor would be more than all requests: nothing would fire
# although everything fails.
_SHARE_MAX = 0.9
# Seconds that a store may take for its smallest answer, and the part of a disk that
# stays free.
_STORE_SECONDS_MAX = 5
_DISK_FREE_MIN = 0.1


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert rule; `hold` is how long its condition must last."""

    name: str
    expr: str
    summary: str
    description: str
    runbook: str
    severity: str = "critical"
    hold: str = "5m"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rules that are evaluated together; no interval: as often as Prometheus does."""

    name: str
    alerts: tuple[Alert, ...]
    interval: str = ""


def groups(settings: Settings) -> list[Group]:
    """Return the rules about opskit, and those about the service if `[slo]` is set."""
    found = [
        Group(name="opskit-backups", alerts=(*_BACKUPS, *_configured(settings))),
        Group(name="opskit-host", alerts=_HOST),
    ]
    for speed, interval in (("Fast", ""), ("Slow", "5m")):
        if burning := tuple(_burning(settings.slo, speed)):
            name = f"opskit-service-{speed.lower()}"
            found.append(Group(name=name, alerts=burning, interval=interval))
    return found


def _configured(settings: Settings) -> Iterator[Alert]:
    """Yield the alerts that need more of the configuration than metrics hold."""
    grace = int(settings.scheduler.grace.total_seconds())
    yield Alert(
        name="OpskitRunMissed",
        expr="increase(opskit_runs_missed_total[1d]) > 0\n"
        "or time() - opskit_backup_last_run_timestamp_seconds\n"
        f"  > opskit_source_expected_interval_seconds + {grace}",
        summary="A run of {{ $labels.source }} was missed",
        description="A backup of {{ $labels.source }} was due and did not start in "
        "time.",
        runbook="run-missed",
        severity="warning",
    )
    yield Alert(
        name="OpskitDrillMissing",
        expr="opskit_drill_max_age_seconds\n"
        "  unless opskit_drill_last_success_timestamp_seconds",
        summary="No drill of {{ $labels.source }} ever passed",
        description="{{ $labels.source }} has been watched for longer than max_age of "
        "drills, and nothing proves that a set of it can be restored.",
        runbook="drill-stale",
        severity="warning",
        hold=format_duration(settings.drill.max_age),
    )
    if sources := (*settings.databases, *settings.files):
        yield Alert(
            name="OpskitAbsent",
            expr="\nor ".join(
                f"absent(opskit_source_max_age_seconds{{source={json.dumps(name)}}})"
                for name in sources
            ),
            summary="Nothing reports on {{ $labels.source }}",
            description="Prometheus gets no metrics of opskit about "
            "{{ $labels.source }}: the scheduler does not run, cannot be reached, or "
            "has another configuration.",
            runbook="scheduler-absent",
            hold="10m",
        )


def _burning(slo: SloSettings, speed: str) -> Iterator[Alert]:
    (severity, hold, left), _pairs = _BURN[speed]
    for each in objectives(slo):
        yield Alert(
            name=f"Service{each.name}{speed}Burn",
            expr=_burns(slo, each, speed),
            summary=f"The service misses an objective: {each.promise}",
            description=f"At this rate, what the objective allows in 30 days is used "
            f"up {left}.",
            runbook=each.runbook,
            severity=severity,
            hold=hold,
            labels=slo.labels,
        )


def _burns(slo: SloSettings, objective: Objective, speed: str) -> str:
    """Return the condition: too fast in a long window, still in the short one."""
    service = ServiceQueries(slo)
    pairs = []
    for long, short, factor in _BURN[speed][1]:
        share = max(min(objective.budget * factor, _SHARE_MAX), objective.budget)
        conditions = (
            objective.missed(share, long),
            objective.missed(share, short),
            service.enough(objective.counter, long),
        )
        pairs.append("\nand ".join(conditions))
    return "\nor\n".join(pairs)


def render(groups: Iterable[Group], *, runbooks_url: str = "") -> str:
    """Return a file of rules for Prometheus, with links to the runbooks."""
    lines = ["# Alert rules, written from the configuration of opskit.", "groups:"]
    for group in groups:
        lines.append(f"  - name: {group.name}")
        lines += [f"    interval: {group.interval}"] if group.interval else []
        lines.append("    rules:")
        for alert in group.alerts:
            lines += _lines(alert, runbooks_url.rstrip("/") or "runbooks")
    return "\n".join(lines) + "\n"


def _lines(alert: Alert, runbooks: str) -> Iterator[str]:
    yield f"      - alert: {alert.name}"
    yield "        expr: |"
    yield textwrap.indent(alert.expr, " " * 10)
    yield f"        for: {alert.hold}"
    yield "        labels:"
    for name, value in {**alert.labels, "severity": alert.severity}.items():
        yield f"          {name}: {json.dumps(value, ensure_ascii=False)}"
    yield "        annotations:"
    # A text in JSON is one in YAML.
    yield f"          summary: {json.dumps(alert.summary, ensure_ascii=False)}"
    yield f"          description: {json.dumps(alert.description, ensure_ascii=False)}"
    yield f"          runbook_url: {json.dumps(f'{runbooks}/{alert.runbook}.md')}"


_BACKUPS = (
    Alert(
        name="OpskitBackupStale",
        expr="time() - opskit_backup_last_success_timestamp_seconds\n"
        "  > ignoring (store) group_left () opskit_source_max_age_seconds",
        summary="No fresh backup of {{ $labels.source }} in {{ $labels.store }}",
        description="The newest set of {{ $labels.source }} in the store "
        "{{ $labels.store }} is {{ $value | humanizeDuration }} old, more than max_age "
        "allows.",
        runbook="backup-failed",
    ),
    Alert(
        name="OpskitBackupMissing",
        expr="opskit_sets == 0",
        summary="No backup of {{ $labels.source }} in {{ $labels.store }}",
        description="The store {{ $labels.store }} holds no set of "
        "{{ $labels.source }} at all.",
        runbook="backup-failed",
        hold="1h",
    ),
    Alert(
        name="OpskitBackupFailed",
        expr="opskit_backup_last_run_succeeded == 0",
        summary="The last backup of {{ $labels.source }} failed",
        description="The last backup of {{ $labels.source }} made no set, or did not "
        "reach every store.",
        runbook="backup-failed",
        severity="warning",
    ),
    Alert(
        name="OpskitBackupChanged",
        expr="opskit_backup_sudden_changes > 0",
        summary="{{ $labels.source }} holds far less than before",
        description="In the newest set of {{ $labels.source }} a table is missing, or "
        "its size or number of rows fell by more than max_drop.",
        runbook="sudden-change",
        hold="0m",
    ),
    Alert(
        name="OpskitDrillStale",
        expr="time() - opskit_drill_last_success_timestamp_seconds\n"
        "  > opskit_drill_max_age_seconds",
        summary="{{ $labels.source }} has not been drilled for too long",
        description="The last drill of {{ $labels.source }} that passed is "
        "{{ $value | humanizeDuration }} old: nothing proves that newer sets can be "
        "restored.",
        runbook="drill-stale",
        severity="warning",
    ),
    Alert(
        name="OpskitDrillFailed",
        expr="opskit_drill_last_run_passed == 0",
        summary="The newest drill of {{ $labels.source }} failed",
        description="A backup set of {{ $labels.source }} was restored and differs "
        "from what was dumped, or could not be restored.",
        runbook="drill-failed",
        hold="0m",
    ),
)
_HOST = (
    Alert(
        name="OpskitStoreUnreachable",
        expr="opskit_store_reachable == 0",
        summary="The store {{ $labels.store }} cannot be reached",
        description="Backups are not stored in {{ $labels.store }}, and nothing can be "
        "restored from it.",
        runbook="store-unreachable",
        hold="10m",
    ),
    Alert(
        name="OpskitStoreSlow",
        expr=f"avg_over_time(opskit_store_latency_seconds[30m]) > {_STORE_SECONDS_MAX}",
        summary="The store {{ $labels.store }} is slow",
        description="The store {{ $labels.store }} takes "
        "{{ $value | humanizeDuration }} for its smallest answer.",
        runbook="store-unreachable",
        severity="warning",
        hold="15m",
    ),
    Alert(
        name="OpskitDiskFilling",
        expr=f"opskit_disk_free_bytes / opskit_disk_size_bytes < {_DISK_FREE_MIN}",
        summary="The disk of {{ $labels.path }} is nearly full",
        description="{{ $value | humanizePercentage }} of the disk of "
        "{{ $labels.path }} are free.",
        runbook="disk-full",
        severity="warning",
        hold="10m",
    ),
    Alert(
        name="OpskitLedgerBroken",
        expr="opskit_ledger_intact == 0",
        summary="The ledger is not intact",
        description="Records of runs were changed or removed, here or in a store.",
        runbook="ledger-broken",
        hold="0m",
    ),
    Alert(
        name="OpskitNotificationsFailing",
        expr="opskit_notification_last_succeeded == 0",
        summary="Messages to {{ $labels.receiver }} fail",
        description="The last message to {{ $labels.receiver }} could not be "
        "delivered: nobody learns of failures there.",
        runbook="notifications-failing",
        severity="warning",
        hold="15m",
    ),
)
