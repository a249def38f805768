"""The dashboards, as Grafana reads them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import promql_parser
import pytest

from opskit.config.watch import LatencySettings, SloSettings
from opskit.watch import dashboards

SLO = SloSettings(
    availability=99.9,
    error_rate=0.01,
    latency=LatencySettings(p95="300ms"),
    labels={"job": "shop"},
)
BOTH = [dashboards.opskit(), dashboards.service(SLO)]


def targets(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every query of a dashboard."""
    return [each for panel in dashboard["panels"] for each in panel["targets"]]


@pytest.mark.parametrize("dashboard", BOTH, ids=lambda each: each["uid"])
def test_a_dashboard_is_complete(dashboard: dict[str, Any]) -> None:
    """Panels have numbers and places of their own, and queries that parse."""
    panels = dashboard["panels"]
    places = [each["gridPos"] for each in panels]

    assert len({each["id"] for each in panels}) == len(panels)
    assert all(each["x"] + each["w"] <= 24 for each in places)
    for one, other in combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
    for panel in panels:
        names = [each["refId"] for each in panel["targets"]]
        assert len({*names}) == len(names) > 0
    for each in targets(dashboard):
        promql_parser.parse(each["expr"])
        assert each["legendFormat"]


def test_the_data_source_is_asked_for() -> None:
    """Whoever imports a dashboard chooses the Prometheus that it reads."""
    for dashboard in BOTH:
        (variable,) = dashboard["templating"]["list"]

        assert variable["type"] == "datasource"
        assert {each["datasource"]["uid"] for each in targets(dashboard)} == {
            f"${{{variable['name']}}}"
        }


def test_the_service_has_its_golden_signals_and_objectives() -> None:
    """The objectives stand beside what is measured; without them the signals stay."""
    plain = dashboards.service(SloSettings())

    assert [each["title"] for each in plain["panels"]] == [
        "Requests",
        "Errors",
        "Latency",
        "Refused by a rate limit",
    ]
    assert [each["title"] for each in BOTH[1]["panels"]][-1] == "Error budget"
    assert "vector(0.3)" in [each["expr"] for each in targets(BOTH[1])]
