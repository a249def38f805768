"""Discovery: which databases the rules of [discover] find."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from opskit.checks import Check, count, failure, some
from opskit.config import DatabaseSettings, Settings
from opskit.config.discover import DiscoverSettings
from opskit.config.section import SOURCE_NAME, Section, format_duration
from opskit.errors import ConfigurationError, OpskitError
from opskit.postgres.connect import (
    connect,
    execute,
    limit_statements,
    query_column,
    user_query,
)
from opskit.postgres.parameters import parse, url_of_database
from opskit.postgres.scratch import all_copies
from opskit.threads import Pool

_SECONDS_MAX = 30
_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the rules found: databases, and the rule of each, by the source's name.

    `answered` are the rules that said what there is: what they leave out is gone.
    `faults` says of a rule why it did not, or which databases cannot be sources.
    `began` is when they were asked, by the monotonic clock.
    """

    databases: Mapping[str, DatabaseSettings] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()
    faults: Mapping[str, OpskitError] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic, compare=False)


def find(
    settings: Settings,
    *,
    labels: Collection[str] | None = None,
    before: Found | None = None,
) -> Found:
    """Ask the rules, those of some labels or all; for how long is bounded.

    A rule that does not answer keeps what it had found `before`.
    """
    began = time.monotonic()
    rules = {
        name: rule
        for name, rule in settings.discover.items()
        if labels is None or rule.label in labels
    }
    with Pool(max(1, len(rules))) as pool:
        asked = {name: pool.submit(_ask, name, rule) for name, rule in rules.items()}
    databases: dict[str, DatabaseSettings] = {}
    rule_of = dict.fromkeys([*settings.databases, *settings.files], "")
    faults: dict[str, OpskitError] = {}
    answered = set(rules)
    for name, answer in asked.items():
        useless: list[str] = []
        try:
            found, useless = answer.result()
        except OpskitError as error:
            answered.discard(name)
            faults[name], found = error, _known(before, name)
        for source, database in found.items():
            if source not in rule_of:
                databases[source], rule_of[source] = database, name
            else:
                by = f"discover.{rule_of[source]}" if rule_of[source] else "a section"
                useless.append(f"{source!r} (the name is taken by {by})")
        if useless and name in answered:
            faults[name] = ConfigurationError(
                f"discover.{name} finds what is not backed up: {some(useless)}",
                hint="Leave it out of the rule, and list what exists in [databases] "
                "under another name; a prefix keeps the names of two rules apart.",
            )
    return Found(
        databases=databases,
        rules={source: rule_of[source] for source in databases},
        answered=frozenset(answered),
        faults=faults,
        began=began,
    )


def _known(before: Found | None, rule: str) -> dict[str, DatabaseSettings]:
    if before is None:
        return {}
    known = before.databases.items()
    return {name: each for name, each in known if before.rules[name] == rule}


def _ask(
    key: str, rule: DiscoverSettings
) -> tuple[dict[str, DatabaseSettings], list[str]]:
    """Return the sources that a rule finds by their names, and what cannot be one.

    Raises:
        OpskitError: it does not answer; no source at all is no answer.
    """
    found = {}
    try:
        urls, useless = _of_file(rule.file) if rule.file else _of_server(rule)
        for name, url in urls.items():
            source = rule.prefix + name
            if re.fullmatch(SOURCE_NAME, source):
                found[source] = _database(rule, url)
            else:
                useless.append(f"{source!r} (no name for a source)")
        if not found:
            only = f", only {some(useless)}" if useless else ""
            raise ConfigurationError(
                f"no database is found{only}",
                hint="Correct the rule, or remove it; what it found before is kept.",
            )
    except OpskitError as error:
        raise error.replace(summary=f"discover.{key}: {error.summary}") from error
    return found, useless


def _database(rule: DiscoverSettings, url: str) -> DatabaseSettings:
    given = {name: getattr(rule, name) for name in DatabaseSettings.model_fields}
    return DatabaseSettings.model_validate(
        given | {"url": SecretStr(url), "url_file": None}
    )


def _of_server(rule: DiscoverSettings) -> tuple[dict[str, str], list[str]]:
    url = rule.resolve_url()
    with connect(url, purpose="discover") as connection:
        limit_statements(connection, _SECONDS_MAX)
        execute(connection, "SET default_transaction_read_only = on")
        # The limit of -2 is that of a database whose DROP was interrupted.
        there: list[Any] = query_column(
            connection,
            "SELECT datname FROM pg_database "
            "WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 "
            "ORDER BY datname",
        )
        copies = all_copies(connection)  # of a restore or a drill that goes on
        wanted = [each for each in there if _matches(each, rule.pattern)]
        if rule.query:
            rows = user_query(connection, rule.query)
            values = [row[0] if row else None for row in rows]
            # An array or JSON is no name either.
            wanted = [e if isinstance(e, Hashable) else str(e) for e in values]
        wanted = [each for each in wanted if each not in copies]
    urls = {each: url_of_database(url, each) for each in wanted if each in there}
    missing = [each for each in wanted if each not in urls]
    return urls, [f"{each!r} (no database to connect to)" for each in missing]


def by_pattern(settings: Settings, source: str) -> DatabaseSettings | None:
    """Return how a database that is gone was reached, if only one pattern takes it.

    Somebody has to restore it.
    """
    matching = [
        (rule, source.removeprefix(rule.prefix))
        for rule in settings.discover.values()
        if rule.pattern and source.startswith(rule.prefix)
        if _matches(source.removeprefix(rule.prefix), rule.pattern)
    ]
    if len(matching) != 1:
        return None
    ((rule, name),) = matching
    return _database(rule, url_of_database(rule.resolve_url(), name))


def _matches(name: str, patterns: list[str]) -> bool:
    """Return whether a pattern takes a name, and none leaves it out."""
    leaving_out = [each[1:] for each in patterns if each.startswith("!")]
    return any(fnmatchcase(name, each) for each in patterns) and not any(
        fnmatchcase(name, each) for each in leaving_out
    )


def _of_file(path: Path) -> tuple[dict[str, str], list[str]]:
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
        if len(content) > _BYTES_MAX:
            raise ValueError(f"it is larger than {_BYTES_MAX} bytes")
        urls = json.loads(content, object_pairs_hook=_without_repeats)
        if not isinstance(urls, dict):
            raise ValueError("it is no JSON object")
        for name, url in urls.items():
            if not str(url).startswith(("postgresql://", "postgres://")):
                raise ValueError(f"{name!r} has no URL that begins with postgresql://")
            parse(url)
    except (OSError, ValueError, RecursionError, ConfigurationError) as error:
        is_gone = isinstance(error, FileNotFoundError)  # it was there a moment ago
        reason = "there is no such file" if is_gone else error
        raise ConfigurationError(
            f"{path} cannot be used: {reason}",
            hint="Write a new file beside it and rename that, so that nobody reads a "
            "half of one; what was found before is kept.",
        ) from None
    return urls, []


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def with_found(settings: Settings, found: Found) -> Settings:
    """Return the settings with what was found among the databases."""
    databases = {**settings.databases, **found.databases}
    return settings.model_copy(update={"databases": databases})


def placeholder(rule: DiscoverSettings) -> DatabaseSettings:
    """Return all that is known of a database but how to reach it."""
    return _database(rule, "postgresql://unknown.invalid")


def as_configuration(databases: Mapping[str, DatabaseSettings]) -> bytes:
    """Return TOML that lists databases, for the end of a configuration."""
    return "".join(
        f"\n[databases.{name}]\n"
        + "".join(f"{key} = {_toml(value)}\n" for key, value in _given(database))
        for name, database in databases.items()
    ).encode()


def _given(section: Section) -> Iterator[tuple[str, object]]:
    return ((key, value) for key, value in section if value is not None)


def _toml(value: object) -> str:
    if isinstance(value, Section):
        inner = ", ".join(f"{key} = {_toml(each)}" for key, each in _given(value))
        return f"{{ {inner} }}"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    elif isinstance(value, timedelta):
        value = format_duration(value)
    elif isinstance(value, Path):
        value = str(value)
    # JSON is TOML but for the one character that it leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def examine(settings: Settings) -> Iterator[Check]:
    """Yield of each rule how many databases it finds, or what is wrong with it."""
    found = find(settings)
    for name, rule in settings.discover.items():
        title = f"discover {name}"
        if name in found.faults:
            yield failure(title, found.faults[name])
            continue
        number = list(found.rules.values()).count(name)
        yield Check(
            name=title,
            passed=True,
            observed=f"{count(number, 'database')} found",
            hint="" if rule.schedule else "No backup of them is due: set schedule.",
        )
