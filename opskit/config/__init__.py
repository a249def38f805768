"""Settings: every key typed, described and bounded; loaded once, at the top."""

from __future__ import annotations

from opskit.config.drill import DrillSettings, Query
from opskit.config.loading import load
from opskit.config.settings import (
    ENVIRONMENT_PREFIX,
    DatabaseSettings,
    RetentionSettings,
    Settings,
    StoreSettings,
)

__all__ = [
    "ENVIRONMENT_PREFIX",
    "DatabaseSettings",
    "DrillSettings",
    "Query",
    "RetentionSettings",
    "Settings",
    "StoreSettings",
    "load",
]
