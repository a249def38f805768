"""Settings: every key typed, described and bounded; loaded once, at the top."""

from __future__ import annotations

from opskit.config.drill import DrillSettings, LoadSettings, Query, RestoreSettings
from opskit.config.settings import (
    ENVIRONMENT_PREFIX,
    Settings,
    configuration_path,
    load,
    validated,
)
from opskit.config.sources import (
    DatabaseSettings,
    FolderSettings,
    RetentionSettings,
    SourceRetention,
)
from opskit.config.stores import StoreSettings

__all__ = [
    "ENVIRONMENT_PREFIX",
    "DatabaseSettings",
    "DrillSettings",
    "FolderSettings",
    "LoadSettings",
    "Query",
    "RestoreSettings",
    "RetentionSettings",
    "Settings",
    "SourceRetention",
    "StoreSettings",
    "configuration_path",
    "load",
    "validated",
]
