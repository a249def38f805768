"""The settings of drills."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, SecretStr

from opskit.config.section import Count, Duration, PostgresUrl, Section, read_url


class Query(Section):
    """A query of the user, and the result that a restored copy must return."""

    name: str = Field(
        min_length=1, description="what the check is called in the evidence"
    )
    sql: str = Field(min_length=1, description="one statement that returns a result")
    expect: str | int | float | bool | list[list[Any]] | None = Field(
        description="the single value it returns, or the rows as a list of lists"
    )
    database: str = Field(
        default="", description="the source it is for; empty for every one"
    )


_Names = TypeVar("_Names", list[str], list[str] | None)
_ALLOWED = re.compile(
    r"(extension|extension-version|locale|provider|collation|setting|role"
    r"|role-attributes|tablespace|feature|[A-Z][A-Z ]*) \S.*"
)


def known_kinds(allow: _Names) -> _Names:
    """Refuse names that no drill or restore uses."""
    for each in allow or ():
        if _ALLOWED.fullmatch(each) is None:
            raise ValueError(
                "each is a kind and a name, as a drill shows them: "
                "extension NAME, role NAME, …"
            )
    return allow


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """How a copy is loaded, of a restore or a drill, and what it may lack.

    `settings` are those of the sessions that load, `sql_before` and `sql_after` the
    user's own statements; `allow` names what is done without.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    allow: Sequence[str] = ()
    sql_before: Sequence[str] = ()
    sql_after: Sequence[str] = ()


# More time than any suitable machine needs.
_SECONDS = 1800
_BYTES_PER_SECOND = 10_000_000_000 / 3600


class DrillSettings(Section):
    """How a backup set is proved."""

    _secrets = ("existing_url",)

    server: Literal["auto", "installed", "embedded", "container", "existing"] = Field(
        default="auto",
        description="where the throw-away server comes from: `installed` programs, the "
        "`embedded` ones, a `container`, an `existing` server; `auto`: installed or "
        "embedded programs of the right major version, else a container if `image` is "
        "set",
    )
    accept_newer_major: bool = Field(
        default=False,
        description="drill on a newer major version if the set's own is not available",
    )
    allow: Annotated[list[str], AfterValidator(known_kinds)] = Field(
        default=[],
        description="what a drill may do without, by the names that it prints, for "
        "instance `extension pg_cron` or `TRIGGER public.orders audit`; the evidence "
        "says what was not checked",
    )
    mutants: Count = Field(
        default=12,
        description="how many errors are planted in the copy after a comparison "
        "passed, to show that it can fail; 0 for none",
    )
    image: str = Field(
        default="",
        description="the container's image, in which `{major}` stands for the major "
        "version of the set; empty for `postgres:{major}`",
    )
    memory: str = Field(
        default="4g",
        # 512m or more
        pattern=r"^([1-9][0-9]*g|51[2-9]m|5[2-9][0-9]m|[6-9][0-9]{2}m|[1-9][0-9]{3,}m)$",
        description="the container's memory, 512m or more",
    )
    cpus: float = Field(
        default=2.0, gt=0, le=256, description="how many processors it may use"
    )
    settings: dict[str, str] = Field(
        default={},
        description="settings of the throw-away server, such as "
        "`shared_preload_libraries`",
    )
    existing_url: PostgresUrl = Field(
        default=SecretStr(""),
        description="a superuser's URL of the existing server; a scratch database is "
        "made there, and dropped",
    )
    existing_url_file: Path | None = Field(
        default=None, description="a file that holds that URL"
    )
    on_source_server: bool = Field(
        default=False,
        description="allow the existing server to be the one that the set is from",
    )
    sql_before: list[str] = Field(
        default=[],
        description="statements run in the empty copy, such as an extension's own "
        "preparation for a restore",
    )
    sql_after: list[str] = Field(
        default=[], description="statements run in the loaded copy"
    )
    jobs: Count = Field(
        default=0,
        le=64,
        description="parallel restore jobs; 0 for one a core, at most 8",
    )
    work_dir: Path | None = Field(
        default=None,
        description="the folder of throw-away servers and copies; default: TMPDIR",
    )
    timeout: Duration | None = Field(
        default=None,
        gt=timedelta(0),
        description="a drill or restore that takes longer is stopped; default: half an "
        "hour, and an hour more for each 10 GB of the database",
    )
    try_to_destroy: list[str] = Field(
        default=[],
        description="stores where a drill tries to delete and to overwrite an object "
        "beside the set, with the credentials of its run, and fails if the bytes are "
        "gone",
    )
    max_age: Duration = Field(
        default=timedelta(days=8),
        description="a source is degraded whose newest drill that passed is older "
        "than this",
    )
    rto: Duration | None = Field(
        default=None,
        gt=timedelta(0),
        description="the objective: a restore should take no longer than this; what "
        "may be lost is `max_age` of each source",
    )
    queries: list[Query] = Field(default=[], description="the user's own checks")

    @property
    def loading(self) -> LoadSettings:
        """How copies are loaded: `settings` are those of a server that has started."""
        return LoadSettings(
            allow=self.allow, sql_before=self.sql_before, sql_after=self.sql_after
        )

    def timeout_seconds(self, size_bytes: int) -> float:
        """Return how long a drill or restore of such a database may take."""
        if self.timeout is not None:
            return self.timeout.total_seconds()
        return _SECONDS + size_bytes / _BYTES_PER_SECOND

    def resolve_existing_url(self) -> str:
        """Return the URL of the existing server, empty if none is set.

        Raises:
            ConfigurationError: the file cannot be read or holds no URL.
        """
        return self._resolve("existing_url", read_url)


_AS_IN_DRILL = "; as in `[drill]` if not set"


class RestoreSettings(Section):
    """How a set is restored, where that differs from its drills."""

    settings: dict[str, str] | None = Field(
        default=None,
        description="settings of the sessions that load; a setting of the whole "
        f"server must be set on the server{_AS_IN_DRILL}",
    )
    allow: Annotated[list[str] | None, AfterValidator(known_kinds)] = Field(
        default=None,
        description="what every restore may do without, by the names that "
        f"`--accept-failures` takes{_AS_IN_DRILL}",
    )
    sql_before: list[str] | None = Field(
        default=None,
        description=f"statements run in the empty copy{_AS_IN_DRILL}",
    )
    sql_after: list[str] | None = Field(
        default=None,
        description=f"statements run in the loaded copy{_AS_IN_DRILL}",
    )

    def loading(self, drill: DrillSettings) -> LoadSettings:
        """Return how copies are loaded, with a drill's values for what is not set."""
        own = {
            name: getattr(drill, name) if value is None else value
            for name, value in self
        }
        return LoadSettings(**own)
