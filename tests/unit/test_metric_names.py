"""What rules and dashboards ask for is what opskit exports."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from opskit.checks import Health
from opskit.watch import dashboards, metrics
from tests.unit import states
from tests.unit.test_rules import alerts


def exported() -> dict[str, set[str]]:
    """Return the labels of every metric of a state in which everything has happened."""
    records = states.Records()
    sent = records.add(states.NOW, "notify", receiver="mail")
    state = states.well()
    state = replace(state, entries=(*state.entries, sent), notified={"mail": sent})
    fleet = replace(state, fleet=states.sick_fleet(1).fleet)
    # In a fleet nobody but its workers connects to the databases.
    text = "".join(
        metrics.render(each, Health.HEALTHY).decode() for each in (state, fleet)
    )
    samples = re.findall(r"^(opskit_\w+)(?:\{(.*)\})? ", text, re.MULTILINE)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in samples}


def test_every_metric_in_a_rule_is_exported() -> None:
    """An alert about a metric that nobody exports would never fire."""
    asked = {
        name
        for alert in alerts().values()
        for name in re.findall(r"\bopskit_\w+", alert["expr"])
    }

    assert asked
    assert asked <= exported().keys()


def test_every_label_in_a_text_is_one_of_its_metrics() -> None:
    """A text with an empty name in it helps nobody."""
    labels = exported()
    for alert in alerts().values():
        used = re.findall(r"\$labels\.(\w+)", "".join(alert["annotations"].values()))
        metric = re.search(r"\bopskit_\w+", alert["expr"])

        assert not used or (metric and set(used) <= labels[metric[0]]), alert["alert"]


def test_every_metric_in_a_dashboard_is_exported() -> None:
    """A graph of nothing would look as if all were well."""
    asked = set(re.findall(r"\bopskit_\w+", json.dumps(dashboards.opskit())))

    assert asked
    assert asked <= exported().keys()
