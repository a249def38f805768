"""The settings model: every key typed, described and bounded."""

from __future__ import annotations

import os
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from opskit.config.crypto import EncryptionSettings, SigningSettings
from opskit.config.drill import DrillSettings, RestoreSettings
from opskit.config.explain import unknown_environment, validation_error
from opskit.config.section import (
    CompressionLevel,
    Duration,
    PostgresUrl,
    Section,
    SourceName,
    read_url,
)
from opskit.config.sources import FilesSettings, RetentionSettings, SourceRetention
from opskit.config.stores import StoreSettings
from opskit.errors import ConfigurationError

ENVIRONMENT_PREFIX = "OPSKIT_"


class DatabaseSettings(Section):
    """One PostgreSQL database that is backed up."""

    url: PostgresUrl = Field(
        default=SecretStr(""),
        description="connection URL, `postgresql://user@host:port/name`; leave the "
        "password to PGPASSFILE, a service file, `url_file` or the environment",
    )
    url_file: Path | None = Field(
        default=None, description="a file that holds the URL, for a mounted secret"
    )
    restore_url: PostgresUrl = Field(
        default=SecretStr(""),
        description="connection URL for `restore` to the source's server, where the "
        "role that backs up may not create databases; empty: `url`",
    )
    restore_url_file: Path | None = Field(
        default=None, description="a file that holds that URL"
    )
    schedule: str = Field(default="", description="cron timetable of the backup")
    exclude_tables: list[str] = Field(
        default=[], description="pg_dump patterns of tables to leave out altogether"
    )
    exclude_table_data: list[str] = Field(
        default=[], description="pg_dump patterns of tables stored without their rows"
    )
    max_age: Duration = Field(
        default=timedelta(hours=26),
        description="a newest set older than this is unhealthy",
    )
    retention: SourceRetention | None = Field(
        default=None, description="rules of its own instead of `[retention]`"
    )
    lock_wait: Duration = Field(
        default=timedelta(seconds=60),
        description="how long a backup may wait for a lock, of a table or of the "
        "catalog",
    )

    compression_level: CompressionLevel = 3
    streams: int = Field(
        default=0,
        ge=0,
        le=32,
        description="how many dumps may run at once under one snapshot, each with a "
        "connection of its own: the largest tables apart from the rest. Only what is "
        "worth it is dumped apart. 0: half of this machine's processors, at most 4",
    )

    @model_validator(mode="after")
    def _one_address(self) -> DatabaseSettings:
        if bool(self.url.get_secret_value()) == bool(self.url_file):
            raise ValueError("exactly one of url and url_file must be set")
        if self.restore_url.get_secret_value() and self.restore_url_file:
            raise ValueError("only one of restore_url and restore_url_file may be set")
        return self

    def resolve_url(self) -> str:
        """Return the connection URL, read from `url_file` where that is set.

        Raises:
            ConfigurationError: the file cannot be read or holds no URL.
        """
        if self.url_file is None:
            return self.url.get_secret_value()
        return read_url("url_file", self.url_file)

    def resolve_restore_url(self) -> str:
        """Return the URL that `restore` connects with; that of backups if none is set.

        Raises:
            ConfigurationError: a file cannot be read or holds no URL.
        """
        if self.restore_url_file is not None:
            return read_url("restore_url_file", self.restore_url_file)
        return self.restore_url.get_secret_value() or self.resolve_url()


class PostgresSettings(Section):
    """Where the PostgreSQL programs are."""

    bin_dirs: list[Path] = Field(
        default=[],
        description="folders searched for pg_dump and the like before the PATH, the "
        "distributions' folders and the embedded wheel",
    )


class SchedulerSettings(Section):
    """The timetable's clock and address."""

    timezone: str = Field(default="UTC", description="time zone of the schedules")
    listen: str = Field(
        default="127.0.0.1:8321", description="address of the status page"
    )


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    databases: dict[SourceName, DatabaseSettings] = Field(
        default={}, description="by name"
    )
    files: dict[SourceName, FilesSettings] = Field(default={}, description="by name")
    stores: dict[SourceName, StoreSettings] = Field(default={}, description="by name")
    encryption: EncryptionSettings = EncryptionSettings()
    signing: SigningSettings = SigningSettings()
    retention: RetentionSettings = RetentionSettings()
    drill: DrillSettings = DrillSettings()
    restore: RestoreSettings = RestoreSettings()
    postgres: PostgresSettings = PostgresSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    state_dir: Path = Field(
        default=Path(".opskit"),
        description="locks, the ledger and reports; "
        "relative to the configuration's folder",
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto",
        description="console: what is wrong, for people; json: one JSON object a line, "
        "every step too; auto: console on a terminal, elsewhere JSON of what is wrong",
    )

    @model_validator(mode="after")
    def _one_name_a_source(self) -> Settings:
        twice = self.databases.keys() & self.files.keys()
        if twice:
            raise ValueError(
                f"databases and files must not share the name {min(twice)}: their sets "
                "would lie in one place"
            )
        return self

    @model_validator(mode="after")
    def _one_place_a_store(self) -> Settings:
        names: dict[tuple[str, ...], str] = {}
        for name, each in self.stores.items():
            other = names.setdefault(each.place, name)
            if other != name:
                raise ValueError(
                    f"the stores {other} and {name} are the same place: what one of "
                    "them holds would be no second copy"
                )
        return self

    @model_validator(mode="after")
    def _known_stores(self) -> Settings:
        for name in self.drill.try_to_destroy:
            if name not in self.stores:
                raise ValueError(
                    f"drill.try_to_destroy names {name}, which is no configured store"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order: arguments (tests), environment, then the file that load() names."""
        return (init_settings, env_settings)


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
