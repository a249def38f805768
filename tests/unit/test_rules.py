"""The alert rules: what they hold, and that people find the runbooks that they name."""

from __future__ import annotations

import re
from pathlib import Path

import promql_parser
import pytest
import yaml

from opskit.config import Settings
from opskit.watch.rules import Alert, groups, render

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings.model_validate(
    {
        "databases": {"shop": {"url": "postgresql://ops@db.example/shop"}},
        "files": {"state": {"path": "/srv/state"}},
        "stores": {"local": {"url": "file:///srv/store"}},
        "slo": {
            "availability": 99.9,
            "latency": {"p95": "1.2s", "p99": "2s"},
            "error_rate": 0.01,
            "labels": {"job": 'the "shop"', "path": "C:\\new"},
        },
    }
)


def alerts(settings: Settings = SETTINGS) -> dict[str, Alert]:
    """Return every alert by its name."""
    return {each.name: each for group in groups(settings) for each in group.alerts}


def slo(**keys: object) -> Settings:
    """Return settings with objectives."""
    return Settings.model_validate({"slo": keys})


def shares(alert: Alert) -> set[float]:
    """Return the shares that an alert compares with."""
    return {float(share) for share in re.findall(r"> ([\d.e-]+)", alert.expr)}


def test_the_file_says_what_the_rules_say() -> None:
    """YAML gives back every text, with quotes, backslashes and lines in it."""
    read = yaml.safe_load(render(groups(SETTINGS), runbooks_url="https://x.example/r/"))

    assert [
        {
            "alert": alert.name,
            "expr": alert.expr + "\n",
            "for": alert.hold,
            "labels": {**alert.labels, "severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "description": alert.description,
                "runbook_url": f"https://x.example/r/{alert.runbook}.md",
            },
        }
        for group in groups(SETTINGS)
        for alert in group.alerts
    ] == [rule for group in read["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("alert", alerts().values(), ids=alerts())
def test_an_alert_is_complete(alert: Alert) -> None:
    """It parses, and its runbook exists and names it."""
    promql_parser.parse(alert.expr)
    runbook = ROOT / "runbooks" / f"{alert.runbook}.md"

    assert alert.severity in ("critical", "warning")
    assert alert.summary
    assert alert.description.endswith(".")
    form = re.sub(r"^(Service\w+)(Fast|Slow)Burn$", r"\1…Burn", alert.name)
    assert f"`{form}`" in runbook.read_text(encoding="utf-8")


def test_the_document_lists_every_alert() -> None:
    """docs/alerts.md names the alerts with their severities, and no others."""
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w*…?\w+)` \| (?:(critical|warning) \|)?", text, re.M)
    listed = dict(rows)
    speeds = {name for name in listed if name.startswith("…")}

    assert listed == {
        each.name: each.severity
        for each in alerts().values()
        if each.name.startswith("Opskit")
    } | {"…FastBurn": "critical", "…SlowBurn": "warning"} | {
        name: "" for name in listed if name.startswith("Service")
    }
    assert {
        name.replace("…Burn", speed.strip("…"))
        for name in listed
        if name.startswith("Service")
        for speed in speeds
    } == {name for name in alerts() if name.startswith("Service")}


def test_without_objectives_nothing_is_said_about_a_service() -> None:
    """Rules about metrics that nobody exports would only confuse."""
    assert [name for name in alerts(Settings()) if name.startswith("Service")] == []


def test_each_objective_has_a_fast_and_a_slow_alert() -> None:
    """What is not promised has none; rate limits count with any other objective."""
    assert [
        name
        for name in alerts(slo(latency={"p99": "300ms"}))
        if name.startswith("Service")
    ] == [
        f"Service{objective}{speed}Burn"
        for speed in ("Fast", "Slow")
        for objective in ("LatencyP99", "RateLimit")
    ]


def test_burn_rates_are_multiples_of_the_budget() -> None:
    """99.9 % leaves 0.1 %: 14.4 and 6 times as much pages, 3 times and once do not."""
    found = alerts(slo(availability=99.9))

    assert shares(found["ServiceAvailabilityFastBurn"]) == {0.0144, 0.006}
    assert shares(found["ServiceAvailabilitySlowBurn"]) == {0.003, 0.001}


def test_a_total_outage_fires_whatever_the_budget_is() -> None:
    """14.4 times 20 % would be more than all requests."""
    found = alerts(slo(availability=80))

    assert shares(found["ServiceAvailabilityFastBurn"]) == {0.9}
    assert shares(found["ServiceAvailabilitySlowBurn"]) == {0.6, 0.2}


def test_a_counter_of_refusals_is_used_if_there_is_one() -> None:
    """Without one, answers with status 429 count."""
    counted = alerts(slo(availability=99, rate_limited_metric="refused_total"))
    plain = alerts(slo(availability=99, status_label="code"))

    assert "rate(refused_total[1h])" in counted["ServiceRateLimitFastBurn"].expr
    assert 'code=~"429"' in plain["ServiceRateLimitFastBurn"].expr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("requests_metric", "rate(x[5m])"),
        ("latency_metric", ""),
        ("rate_limited_metric", "a-b"),
        ("status_label", "a:b"),
        ("labels", {"a b": "c"}),
        ("prometheus_url", "prometheus:9090"),
        ("prometheus_url", "https://me:secret@prometheus.example"),
        ("latency", {"p95": "infs"}),
        ("latency", {"p95": "nans"}),
    ],
)
def test_what_prometheus_would_not_take_is_refused(key: str, value: object) -> None:
    """A name that is none would make the whole file of rules useless."""
    with pytest.raises(ValueError, match=key):
        slo(availability=99, **{key: value})
