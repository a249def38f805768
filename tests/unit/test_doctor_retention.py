"""Where locks and retention contradict each other, and the days that are told."""

from __future__ import annotations

import pytest

from opskit.checks import Check, Health
from opskit.config import StoreSettings
from opskit.config.sources import RetentionSettings, SourceRetention
from opskit.doctor import stores as doctor_stores


def _examined(lock_days: int, **rules: object) -> list[Check]:
    none = {
        "keep_last": 0,
        "keep_within": "0d",
        "keep_daily": 0,
        "keep_weekly": 0,
        "keep_monthly": 0,
        "min_keep": 1,
    }
    store = StoreSettings(url="s3://bucket", object_lock_days=lock_days)
    settings = RetentionSettings.model_validate(none | rules)
    return [*doctor_stores.examine_retention({"off": store}, settings)]


def test_a_store_without_a_lock_has_nothing_to_contradict() -> None:
    """No finding, whatever the rules."""
    found = _examined(0, keep_daily=30)

    assert found == []


def test_a_folder_has_nothing_to_contradict() -> None:
    """Folders cannot lock."""
    stores = {"local": StoreSettings(url="file:///var/backups")}

    found = [*doctor_stores.examine_retention(stores, RetentionSettings())]

    assert found == []


@pytest.mark.parametrize(
    ("rule", "setting", "days"),
    [
        ("keep_last", 20, 20),
        ("keep_within", "20d", 20),
        ("keep_within", "49h", 3),
        ("keep_daily", 20, 20),
        ("keep_weekly", 3, 21),
        ("keep_monthly", 2, 62),
        ("min_keep", 5, 5),
    ],
)
def test_a_lock_that_is_longer_than_every_rule_is_degraded(
    rule: str, setting: object, days: int
) -> None:
    """It says by how many days prune comes late, and which rule keeps longest."""
    (found,) = _examined(100, **{rule: setting})

    assert found.name == "store off: lock and retention"
    assert found.status is Health.DEGRADED
    assert f"longer than {days} ({rule})" in found.observed
    assert f"for {100 - days} days" in found.observed
    assert f"Set object_lock_days to {days} or less" in found.hint


def test_a_lock_that_is_shorter_than_the_rules_says_between_which_days() -> None:
    """It is a fair set-up, but only the credentials protect older sets."""
    (found,) = _examined(14, keep_daily=30, min_keep=3)

    assert found.status is Health.HEALTHY
    assert "between day 14 and day 30 only the credentials" in found.observed
    assert "the newest 3 stay" in found.observed
    assert "towards 30" in found.hint


def test_a_lock_as_long_as_the_rules_is_healthy() -> None:
    """Nothing is left to do."""
    (found,) = _examined(30, keep_daily=30)

    assert found.status is Health.HEALTHY
    assert found.hint == ""


def test_rules_of_one_source_are_examined_alike() -> None:
    """They have the same names."""
    stores = {"off": StoreSettings(url="s3://bucket", object_lock_days=10)}

    (found,) = doctor_stores.examine_retention(stores, SourceRetention(keep_last=10))

    assert found.status is Health.HEALTHY
