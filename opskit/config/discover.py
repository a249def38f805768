"""The settings of databases that are discovered, not listed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from opskit.config.section import PostgresUrl
from opskit.config.sources import DatabaseSettings


class DiscoverSettings(DatabaseSettings):
    """A rule that discovers databases: exactly one of pattern, query and file.

    Its other keys go for each database that it finds. What it finds are sources for
    `fleet-worker` and for all commands. `scheduler` runs jobs of listed databases only.
    """

    url: PostgresUrl = Field(
        default=SecretStr(""),
        description="connection URL of a database of the server, for `pattern` and "
        "`query`; with another name in it, it leads to each database found",
    )
    pattern: list[str] = Field(
        default=[],
        description="names of databases of the server, with `*`; one with `!` in front "
        'leaves out what it matches: `["*", "!postgres", "!test_*"]`',
    )
    query: str = Field(
        default="",
        description="a statement for the database of `url` that returns names of "
        "databases of its server in its first column; it names tables with their "
        "schema, and may only read",
    )
    file: Path | None = Field(
        default=None,
        description="a file that another tool writes: one JSON object with the URL of "
        'each source by its name, `{"shop": "postgresql://ops@db.example/shop"}`',
    )
    prefix: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9_-]{0,30})?$",
        description="what the names of the sources begin with, before the names of the "
        "databases, so that those of two servers differ",
    )

    @model_validator(mode="after")
    def _one_address(self) -> DiscoverSettings:
        if bool(self.pattern) + bool(self.query) + bool(self.file) != 1:
            raise ValueError("exactly one of pattern, query and file must be set")
        has_url = bool(self.url.get_secret_value()), bool(self.url_file)
        if self.file is None and sum(has_url) != 1:
            raise ValueError("exactly one of url and url_file must be set")
        has_restore_url = self.restore_url.get_secret_value() or self.restore_url_file
        if self.file is not None and (any(has_url) or has_restore_url):
            raise ValueError("the file holds the URLs: no other may be set")
        if self.pattern and all(each.startswith("!") for each in self.pattern):
            raise ValueError("pattern only leaves out: it needs one without !")
        return self
