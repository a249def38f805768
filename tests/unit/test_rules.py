"""The alert rules: what they hold, and that people find the runbooks that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from opskit.config import Settings
from opskit.watch.rules import render

ROOT = Path(__file__).resolve().parents[2]
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
            "labels": {"job": 'the "shop"', "path": "C:\\new: #1"},
        },
    }
)


Alert = dict[str, Any]


def alerts(settings: Settings = SETTINGS) -> dict[str, Alert]:
    """Return every alert by its name."""
    read = yaml.safe_load(render(settings))
    return {each["alert"]: each for group in read["groups"] for each in group["rules"]}


def slo(**keys: object) -> Settings:
    """Return settings with objectives."""
    return Settings.model_validate({"slo": keys})


def shares(alert: Alert) -> set[float]:
    """Return the shares that an alert compares with."""
    return {float(share) for share in re.findall(r"> ([\d.e-]+)", alert["expr"])}


def links(alert: Alert) -> list[str]:
    """Return the runbooks that an alert may link."""
    text = alert["annotations"]["runbook_url"]
    cases = re.search(r"{{ if .*? }}(.*){{ else }}(.*){{ end }}", text)
    if cases is None:
        return [text]
    return [text.replace(cases[0], case) for case in cases.groups()]


@pytest.mark.parametrize("alert", alerts().values(), ids=alerts())
def test_an_alert_is_complete(alert: Alert) -> None:
    """It parses, and its runbook exists and names it."""
    promql_parser.parse(alert["expr"])
    texts = alert["annotations"]
    form = re.sub(r"^(Service\w+)(Fast|Slow)Burn$", r"\1…Burn", alert["alert"])

    assert alert["labels"]["severity"] in ("critical", "warning")
    assert texts["summary"]
    assert texts["description"].endswith(".")
    for link in links(alert):
        assert f"`{form}`" in (ROOT / link).read_text(encoding="utf-8")


def test_labels_of_the_service_are_in_the_queries_and_on_the_alerts() -> None:
    """Whatever their values hold, YAML and PromQL give it back."""
    alert = alerts()["ServiceAvailabilityFastBurn"]
    expected = SETTINGS.slo.labels

    assert alert["labels"] == {**expected, "severity": "critical"}
    assert 'job="the \\"shop\\"", path="C:\\\\new: #1"' in alert["expr"]


def test_runbooks_are_linked_where_they_lie() -> None:
    """The address in the configuration comes before their names, with one slash."""
    settings = Settings.model_validate(
        {"notify": {"runbooks_url": "https://git.example/runbooks/"}}
    )
    found = {link for each in alerts(settings).values() for link in links(each)}

    assert "https://git.example/runbooks/store-failing.md" in found
    assert all(
        re.fullmatch(r"https://git.example/runbooks/[\w-]+\.md", e) for e in found
    )


def test_without_sources_nothing_can_be_absent() -> None:
    """The rules of an empty configuration are rules too."""
    assert "OpskitAbsent" not in alerts(Settings())
    assert "OpskitStoreSlow" in alerts(Settings())


def test_the_document_lists_every_alert() -> None:
    """docs/alerts.md names the alerts with their severities, and no others."""
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w*…?\w+)` \| (?:(critical|warning) \|)?", text, re.M)
    listed = dict(rows)
    speeds = {name for name in listed if name.startswith("…")}

    assert listed == {
        name: each["labels"]["severity"]
        for name, each in alerts().items()
        if name.startswith("Opskit")
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

    assert "rate(refused_total[1h])" in counted["ServiceRateLimitFastBurn"]["expr"]
    assert 'code=~"429"' in plain["ServiceRateLimitFastBurn"]["expr"]


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
