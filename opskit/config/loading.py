"""Loads the settings from a file and the environment, once, at the top."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
)

from opskit.config.explain import unknown_environment, validation_error
from opskit.config.settings import ENVIRONMENT_PREFIX, Settings
from opskit.errors import ConfigurationError

CONFIG_NAME = "opskit.toml"


def load(path: Path | None = None) -> Settings:
    """Read a file, by default the one OPSKIT_CONFIG names, else `./opskit.toml`.

    Raises:
        ConfigurationError: no file, not TOML, an unknown key, a wrong type, or an
            impossible value; the message names the key, the value and what is allowed.
    """
    path = Path.cwd() / (path or os.environ.get("OPSKIT_CONFIG") or CONFIG_NAME)
    content = _read_toml(path)
    unknown_environment(os.environ, ENVIRONMENT_PREFIX, set(Settings.model_fields))

    class FileSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **sources: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                *Settings.settings_customise_sources(settings_cls, *args, **sources),
                InitSettingsSource(settings_cls, content),
            )

    try:
        settings = FileSettings()
    except SettingsError as error:
        names = sorted(
            name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)
        )
        raise ConfigurationError(
            f"one of {', '.join(names)} in the environment is not JSON: {error}",
            hint="Lists and sections are given as JSON, for instance "
            """OPSKIT_DATABASES__SHOP__EXCLUDE_TABLES='["log_*"]'.""",
        ) from None
    except ValidationError as error:
        raise validation_error(error, Settings, path) from None
    base = path.resolve().parent
    return settings.model_copy(update={"state_dir": base / settings.state_dir})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        # Some editors begin a file with a byte order mark.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"no configuration: {path} does not exist",
            hint="Write an opskit.toml there (README.md shows one), or name another "
            "file with --config or OPSKIT_CONFIG.",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as TOML: {error}",
            hint="Mend the file at the place named; nothing was touched.",
        ) from error
