"""Tools: which one the settings name."""

from __future__ import annotations

from pathlib import Path

from opskit.config.release import MigrationsSettings
from opskit.errors import ConfigurationError
from opskit.release.alembic import Alembic
from opskit.release.migration_command import MigrationCommand
from opskit.release.revisions import Tool
from opskit.release.sql_files import SqlFiles


def tool_of(settings: MigrationsSettings, base: Path) -> Tool:
    """Return the tool that the settings name; their paths are relative to a folder.

    Raises:
        ConfigurationError: none is configured.
    """
    if settings.tool == "alembic":
        return Alembic(settings, base)
    if settings.tool == "sql":
        return SqlFiles(base / settings.folder)
    if settings.tool == "command":
        return MigrationCommand(settings, base)
    raise ConfigurationError(
        "no migrations are configured",
        hint='Add [release] with migrations = { tool = "alembic", config = '
        '"alembic.ini", database = "shop" }.',
    )
