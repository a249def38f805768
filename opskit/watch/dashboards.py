"""Dashboards for Grafana: one of opskit, one of the operated service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opskit.config.watch import SloSettings, latency_seconds
from opskit.watch.slo import ServiceQueries

_WINDOW = "5m"
_PERIOD = "30d"
_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 8
# Grafana 10 is the oldest that supports everything here.
_SCHEMA = 39
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One graph: queries by their legend; from `limit` on values are red."""

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    limit: float | None = None


def opskit() -> dict[str, Any]:
    """Return the dashboard of backups, drills, stores and the host."""
    return _dashboard("opskit", "opskit: backups and drills", "now-30d", _OPSKIT)


def service(slo: SloSettings) -> dict[str, Any]:
    """Return the dashboard of the golden signals, with the configured objectives."""
    queries = ServiceQueries(slo)
    latencies = {f"p{n}": queries.latency(n / 100, _WINDOW) for n in (50, 95, 99)}
    for name in ("p95", "p99"):
        if text := getattr(slo.latency, name):
            latencies[f"objective of {name}"] = f"vector({latency_seconds(text):.6g})"
    panels = [
        Panel(
            title="Requests",
            queries={"requests": queries.requests(_WINDOW)},
            unit="reqps",
        ),
        Panel(
            title="Errors",
            queries={"failed": queries.failed(_WINDOW)},
            unit="percentunit",
            limit=slo.error_rate,
        ),
        Panel(title="Latency", queries=latencies, unit="s"),
        Panel(
            title="Refused by a rate limit",
            queries={"refused": queries.refused(_WINDOW)},
            unit="percentunit",
            limit=slo.rate_limited,
        ),
    ]
    if slo.availability is not None:
        left = {f"left of {_PERIOD}": queries.budget_left(slo.availability, _PERIOD)}
        panels.append(Panel(title="Error budget", queries=left, unit="percentunit"))
    return _dashboard("opskit-service", "Service: golden signals", "now-6h", panels)


def _dashboard(
    uid: str, title: str, start: str, panels: Sequence[Panel]
) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "tags": ["opskit"],
        "schemaVersion": _SCHEMA,
        "time": {"from": start, "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                }
            ]
        },
        "panels": [_panel(number, each) for number, each in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {
            "h": _HEIGHT,
            "w": _WIDTH,
            "x": column * _WIDTH,
            "y": row * _HEIGHT,
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": expr,
                "legendFormat": legend,
            }
            for index, (legend, expr) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "line" if steps[1:] else "off"}},
            },
            "overrides": [],
        },
    }


_OPSKIT = (
    Panel(
        title="Age of the newest set, of max_age",
        queries={
            "{{source}} in {{store}}": "(time() - "
            "opskit_backup_last_success_timestamp_seconds) "
            "/ ignoring (store) group_left () opskit_source_max_age_seconds"
        },
        unit="percentunit",
        limit=1,
    ),
    Panel(
        title="Age of the newest passed drill, of max_age",
        queries={
            "{{source}}": "(time() - opskit_drill_last_success_timestamp_seconds) "
            "/ opskit_drill_max_age_seconds"
        },
        unit="percentunit",
        limit=1,
    ),
    Panel(
        title="Health (0 healthy, 1 degraded, 2 unhealthy)",
        queries={"health": "opskit_health_status"},
        limit=1,
    ),
    Panel(
        title="Duration of the last backup",
        queries={"{{source}}": "opskit_backup_duration_seconds"},
        unit="s",
    ),
    Panel(
        title="Size of the newest set",
        queries={"{{source}}": "opskit_backup_size_bytes"},
        unit="bytes",
    ),
    Panel(title="Sets", queries={"{{source}} in {{store}}": "opskit_sets"}),
    Panel(
        title="Duration of the restore (RTO)",
        queries={"{{source}}": "opskit_drill_rto_seconds"},
        unit="s",
    ),
    Panel(
        title="Phases of the newest drill",
        queries={"{{source}}: {{phase}}": "opskit_drill_phase_duration_seconds"},
        unit="s",
    ),
    Panel(
        title="Runs a day, by outcome",
        queries={
            "{{operation}}: {{outcome}}": "sum by (operation, outcome) "
            "(increase(opskit_runs_total[1d]))",
            "missed": "sum(increase(opskit_runs_missed_total[1d]))",
        },
    ),
    Panel(
        title="Answers of stores",
        queries={"{{store}}": "opskit_store_latency_seconds"},
        unit="s",
        limit=5,
    ),
    Panel(
        title="Stores that answer, ledger that is intact (1: yes)",
        queries={
            "{{store}}": "opskit_store_reachable",
            "ledger": "opskit_ledger_intact",
        },
    ),
    Panel(
        title="Data that no drill has restored yet: the ten worst sources of each day",
        queries={
            "{{source}}": "topk(10, time() - opskit_source_proven_timestamp_seconds)"
        },
        unit="s",
    ),
    Panel(
        title="Jobs of the fleet",
        queries={
            "{{label}}: {{state}}": "max by (label, state) (opskit_fleet_jobs)",
            "failing": "max(opskit_fleet_jobs_failing)",
            "late": "max(opskit_fleet_jobs_late)",
        },
    ),
    Panel(
        title="Workers of the fleet",
        queries={"{{state}}": "max by (state) (opskit_fleet_workers)"},
    ),
    Panel(
        title="Free space",
        queries={"{{path}}": "opskit_disk_free_bytes / opskit_disk_size_bytes"},
        unit="percentunit",
    ),
)
