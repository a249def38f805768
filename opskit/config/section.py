"""What the sections of the configuration have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from opskit.errors import ConfigurationError

_SCHEMES = ("postgresql://", "postgres://")


class Section(BaseModel):
    """One section: no unknown keys, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # Keys that hold a secret; the key NAME_file names a file that holds it instead.
    _secrets: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _one_place_for_a_secret(self) -> Self:
        for name in self._secrets:
            if getattr(self, name).get_secret_value() and getattr(self, f"{name}_file"):
                raise ValueError(f"only one of {name} and {name}_file may be set")
        return self

    def _resolve(self, name: str, read: Callable[[str, Path], str]) -> str:
        """Return a secret, from its file if one is set; empty if neither is set."""
        path: Path | None = getattr(self, f"{name}_file")
        if path is not None:
            return read(f"{name}_file", path)
        secret: SecretStr = getattr(self, name)
        return secret.get_secret_value()


def _known_scheme(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text and not text.startswith(_SCHEMES):
        raise ValueError("must begin with postgresql://")
    return url


PostgresUrl = Annotated[SecretStr, AfterValidator(_known_scheme)]


def read_url(key: str, path: Path) -> str:
    """Return the connection URL in a file.

    Raises:
        ConfigurationError: the file cannot be read or holds no URL.
    """
    try:
        url = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{key} {path} cannot be read: {error}",
            hint="Check the path and that this user may read it.",
        ) from error
    if not url.startswith(_SCHEMES) or len(url.splitlines()) != 1:
        raise ConfigurationError(
            f"{key} {path} does not hold a postgresql:// URL",
            hint="The file holds the URL on its first line and nothing else.",
        )
    return url


_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_duration(value: object) -> object:
    """Turn `90s`, `15m`, `26h`, `30d` or `8w` into a timedelta.

    Raises:
        ValueError: a text of another form.
    """
    if isinstance(value, timedelta):
        return value
    match = isinstance(value, str) and re.fullmatch(
        r"(\d{1,5})([smhdw])", value.strip()
    )
    if not match:
        raise ValueError(
            "a duration is a whole number and a unit: 90s, 15m, 26h, 30d, 8w"
        )
    return timedelta(seconds=int(match[1]) * _DURATION_UNITS[match[2]])


def format_duration(value: timedelta) -> str:
    """Turn a timedelta into a whole number of the largest unit that fits."""
    seconds = int(value.total_seconds())
    for unit, unit_seconds in reversed(_DURATION_UNITS.items()):
        if seconds and seconds % unit_seconds == 0:
            return f"{seconds // unit_seconds}{unit}"
    return f"{seconds}s"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(0))]


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a whole number is needed")
    return value


Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0)]
CompressionLevel = Annotated[
    int,
    BeforeValidator(_no_boolean),
    Field(
        ge=1,
        le=12,
        description="level of zstd: 1 is the fastest; higher levels take more time "
        "and usually less space",
    ),
]
# In lower case: names in the environment, which may override any key, have no case.
SOURCE_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
SourceName = Annotated[str, Field(pattern=SOURCE_NAME)]
