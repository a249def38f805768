"""What all sections of the configuration have in common, and URLs in files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr

from opskit.errors import ConfigurationError

_SCHEMES = ("postgresql://", "postgres://")


class Section(BaseModel):
    """One section: no unknown keys, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
