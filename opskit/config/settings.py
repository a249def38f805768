"""The settings model: every key typed, described and bounded."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from opskit.config.discover import DiscoverSettings
from opskit.config.drill import DrillSettings, RestoreSettings
from opskit.config.fleet import FleetSettings
from opskit.config.release import ReleaseSettings
from opskit.config.runbooks import RunbooksSettings
from opskit.config.section import Section, SourceName
from opskit.config.smoke import SmokeSettings
from opskit.config.sources import DatabaseSettings, FolderSettings, RetentionSettings
from opskit.config.stores import StoreSettings
from opskit.config.watch import (
    HooksSettings,
    NotifySettings,
    SchedulerSettings,
    SloSettings,
)
from opskit.crypto import keys
from opskit.errors import ConfigurationError
from opskit.log import MASK, mask


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


KeyFile = Annotated[Path | None, BeforeValidator(_none_if_empty)]


class _KeySection(Section):
    """A section with a private key in a file and its passphrase."""

    @model_validator(mode="before")
    @classmethod
    def _no_private_key(cls, data: Any) -> Any:
        """Refuse secrets here, where the error does not show the value."""
        if not isinstance(data, dict):
            return data
        (name,) = cls._secrets
        if not isinstance(data.get(name, ""), str | SecretStr):
            raise ValueError(f"{name} must be a text, in quotes")
        for key, value in data.items():
            if key != name and keys.holds_private_key(str(value)):
                raise ValueError(
                    f"{key} holds a private key, which must stay in its file"
                )
        return data

    def resolve_passphrase(self) -> str:
        """Return the passphrase of the key's file, empty if there is none.

        Raises:
            ConfigurationError: the file with it cannot be read, may be read by others,
                or does not hold one line.
        """
        (name,) = self._secrets
        return self._resolve(name, _read_passphrase)


class EncryptionSettings(_KeySection):
    """The keys that backup sets are encrypted to, and the one that decrypts them."""

    _secrets = ("identity_passphrase",)

    recipients: list[str] = Field(
        default=[],
        description="public keys that sets are encrypted to: `age1…`, `ssh-ed25519 "
        "AAAA…`, `ssh-rsa AAAA…`; empty: sets are not encrypted",
    )
    identity_file: KeyFile = Field(
        default=None,
        description="the private key, of age or OpenSSH: needed to restore and to "
        "drill, never to back up",
    )
    identity_passphrase: SecretStr = Field(
        default=SecretStr(""),
        description="its passphrase, if it has one; better set in the environment",
    )
    identity_passphrase_file: KeyFile = Field(
        default=None,
        description="a file of mode 0600 that holds the passphrase",
    )

    @field_validator("recipients")
    @classmethod
    def _known_recipients(cls, recipients: list[str]) -> list[str]:
        return [keys.recipient(each)[0] for each in recipients]


class SigningSettings(_KeySection):
    """The key that signs sets and evidence, and the keys that are trusted."""

    _secrets = ("key_passphrase",)

    key_file: KeyFile = Field(
        default=None,
        description="a private ed25519 key of OpenSSH that signs manifests and "
        "evidence; empty: they are not signed",
    )
    key_passphrase: SecretStr = Field(
        default=SecretStr(""),
        description="its passphrase, if it has one; better set in the environment",
    )
    key_passphrase_file: KeyFile = Field(
        default=None,
        description="a file of mode 0600 that holds the passphrase",
    )
    trusted_keys: list[str] = Field(
        default=[],
        description="public keys, `ssh-ed25519 AAAA…`; if any is set, sets that none "
        "of them signed are refused",
    )

    @field_validator("trusted_keys")
    @classmethod
    def _known_keys(cls, trusted_keys: list[str]) -> list[str]:
        return [keys.signing_key(each)[0] for each in trusted_keys]


def _read_passphrase(key: str, path: Path) -> str:
    try:
        text = keys.read(path, key).decode()
    except UnicodeDecodeError:
        text = ""
    if len(text.splitlines()) != 1 or not text.strip("\r\n"):
        raise ConfigurationError(
            f"{key} {path} does not hold a passphrase on one line",
            hint="The file holds the passphrase on its first line and nothing else.",
        )
    return text.rstrip("\r\n")


ENVIRONMENT_PREFIX = "OPSKIT_"
# Variables with that prefix that are no configuration themselves.
_NO_KEYS = {"OPSKIT_CONFIG", "OPSKIT_DEBUG", "OPSKIT_SCHEDULED", "OPSKIT_TURN"}


class PostgresSettings(Section):
    """Where the PostgreSQL programs are."""

    bin_dirs: list[Path] = Field(
        default=[],
        description="folders searched for pg_dump and the like before the PATH, the "
        "distributions' folders and the embedded wheel",
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
    discover: dict[SourceName, DiscoverSettings] = Field(
        default={}, description="by name"
    )
    files: dict[SourceName, FolderSettings] = Field(default={}, description="by name")
    stores: dict[SourceName, StoreSettings] = Field(default={}, description="by name")
    encryption: EncryptionSettings = EncryptionSettings()
    signing: SigningSettings = SigningSettings()
    retention: RetentionSettings = RetentionSettings()
    drill: DrillSettings = DrillSettings()
    restore: RestoreSettings = RestoreSettings()
    postgres: PostgresSettings = PostgresSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    fleet: FleetSettings = FleetSettings()
    notify: NotifySettings = NotifySettings()
    hooks: HooksSettings = HooksSettings()
    slo: SloSettings = SloSettings()
    smoke: SmokeSettings = SmokeSettings()
    release: ReleaseSettings = ReleaseSettings()
    runbooks: RunbooksSettings = RunbooksSettings()
    state_dir: Path = Field(
        default=Path(".opskit"),
        description="locks, the ledger and reports; "
        "relative to the configuration's folder",
    )
    ledger_name: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9_-]{0,99})?$",
        description="what the stores call the ledger of this host. Machines that exist "
        "for one job, as those of GitHub do, go on with the ledger of the job before "
        "under one name; never let two of them run at once. Empty: made of the names "
        "of the host and of `state_dir`",
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto",
        description="`console`: warnings and errors as text; `json`: one JSON object "
        "per line, with every step; `auto`: `console` on a terminal, otherwise "
        "warnings and errors as JSON",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if twice := self.databases.keys() & self.files.keys():
            raise ValueError(
                f"databases and files must not share the name {min(twice)}: their sets "
                "would lie in one place"
            )
        names: dict[tuple[str, ...], str] = {}
        for name, each in self.stores.items():
            other = names.setdefault(each.place, name)
            if other != name:
                raise ValueError(
                    f"the stores {other} and {name} are the same place: what one of "
                    "them holds would be no second copy"
                )
        for name in self.drill.try_to_destroy:
            if name not in self.stores:
                raise ValueError(
                    f"drill.try_to_destroy names {name}, which is no configured store"
                )
        migrated = self.release.migrations.database
        if migrated and migrated not in self.databases:
            raise ValueError(
                f"release.migrations.database names {migrated}, which is no configured "
                "database"
            )
        for key in ("heartbeats", "drill_heartbeats"):
            for name in getattr(self.notify, key):
                listed = name in self.databases or name in self.files
                if not listed and not self.discover:
                    raise ValueError(
                        f"notify.{key} names {name}, which is no configured source"
                    )
        return self


def configuration_path() -> Path:
    """Return the file that OPSKIT_CONFIG names, else `./opskit.toml`."""
    return Path.cwd() / (os.environ.get("OPSKIT_CONFIG") or "opskit.toml")


def load(path: Path | None = None) -> Settings:
    """Read a file, by default that of `configuration_path`.

    Raises:
        ConfigurationError: no file, not TOML, an unknown key, a wrong type, or an
            impossible value; the message names the key, the value and what is allowed.
    """
    path = Path.cwd() / path if path else configuration_path()
    settings = validated(_read_toml(path), path)
    base = path.resolve().parent
    return settings.model_copy(
        update={
            "state_dir": base / settings.state_dir,
            "runbooks": settings.runbooks.beside(base),
        }
    )


def validated(content: Mapping[str, Any], path: Path) -> Settings:
    """Return the settings that a file at `path` with this content makes here.

    Raises:
        ConfigurationError: an unknown key, a wrong type, or an impossible value.
    """
    _require_sections(os.environ)

    class FileSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_args: Any, **sources: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            given = InitSettingsSource(settings_cls, dict(content))
            return sources["env_settings"], given

    try:
        return FileSettings()
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
        problems = "; ".join(map(_problem, error.errors()))
        raise ConfigurationError(
            f"{path}: {problems}",
            hint="Correct the keys named in the file or the environment; "
            "docs/configuration.md lists every key.",
        ) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        # Some editors begin a file with a byte order mark.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"no configuration: {path} does not exist",
            hint="Name another file with --config or OPSKIT_CONFIG. In the repository "
            "of a service, `inv init` writes an opskit.toml; README.md shows one.",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as TOML: {error}",
            hint="Correct the file at that place; nothing was changed.",
        ) from error


def _require_sections(environment: Mapping[str, str]) -> None:
    """Refuse variables with our prefix that name no section: they have no effect."""
    sections = Settings.model_fields
    for name in sorted(environment):
        section = name.removeprefix(ENVIRONMENT_PREFIX).split("__")[0].lower()
        if (
            name.startswith(ENVIRONMENT_PREFIX)
            and name not in _NO_KEYS
            and section not in sections
        ):
            raise ConfigurationError(
                f"the environment variable {name} names no configuration section"
                + _suggestion(section, sections),
                hint="Unset it, or spell it OPSKIT_SECTION__KEY.",
            )


def _problem(detail: ErrorDetails) -> str:
    """Return what is wrong with a key, its value, and what is allowed there."""
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(location[:-1])
        return f"unknown key {key}{_suggestion(location[-1], allowed)}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    shown = _shown(detail["input"], is_secret=_annotation_at(location) is SecretStr)
    if location[:1] == ["notify"] and "/" in shown:
        shown = MASK  # an address, whose path alone may be a secret
    return f"{key} = {shown}: {message[0].lower()}{message[1:]}"


def _shown(value: object, *, is_secret: bool) -> str:
    if isinstance(value, BaseModel | dict):
        return "{…}"
    if is_secret and not isinstance(value, int | float):
        # A text that should have been a URL may hold a password anywhere behind this.
        scheme = re.match(r"\w+://", str(value))
        return f"'{scheme[0]}…'" if scheme else MASK
    if isinstance(value, timedelta):  # it was read as one before it was refused
        value = f"{value.total_seconds():g}s"
    shown = repr(value)
    # The text before an @ may be a password, however the URL is misspelt.
    return MASK if re.search(r"[^'\"]@", shown) else mask(shown)


def _suggestion(name: str, allowed: Iterable[str]) -> str:
    names = sorted(allowed)
    if near := difflib.get_close_matches(name, names, n=1):
        return f" (did you mean {near[0]}?)"
    return f" (allowed: {', '.join(names)})" if names else ""


def _fields_at(location: list[str]) -> Iterable[str]:
    """Return the keys allowed at a place."""
    annotation = _annotation_at(location)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_fields
    return ()


def _annotation_at(location: list[str]) -> object:
    """Return the type at a place; a name that the user chose matches any."""
    annotation: object = Settings
    for part in location:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(part)
            annotation = field.annotation if field else None
        else:
            inner = typing.get_args(annotation)
            annotation = next((a for a in inner[::-1] if a is not types.NoneType), None)
    return annotation
