"""Every scenario, by its name."""

from __future__ import annotations

from tests.gamedays.databases import DatabaseLost
from tests.gamedays.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    "database-lost": DatabaseLost(),
}
