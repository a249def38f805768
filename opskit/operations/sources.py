"""Which sources and which backup set are meant, and how a source is backed up."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime

from opskit.backup.create import Source
from opskit.catalog.sets import BackupSet
from opskit.config import FolderSettings, RetentionSettings
from opskit.errors import ConfigurationError, UsageError
from opskit.folders.lock import ServiceLock
from opskit.operations.run import Run

_BEFORE_ZONE = re.compile(r" (?=[+-]\d\d:?\d\d$)| ?(utc|z)$", re.IGNORECASE)


def every(run: Run) -> list[str]:
    """Return the names of all sources, configured databases first, then those found.

    Raises:
        ConfigurationError: there is none.
    """
    names = [*run.settings.databases, *run.found.databases, *run.settings.files]
    if not names:
        raise ConfigurationError(
            "no database is configured",
            hint='Add one: [databases.NAME] with url = "postgresql://…", '
            'or [files.NAME] with path = "/…".',
        )
    return names


def named(run: Run, *, database: str = "", files: str = "") -> str:
    """Return the one source that the flags name, empty where they name none.

    Raises:
        UsageError: they name two, or one that is not configured.
    """
    if database and files:
        raise UsageError(
            "--database and --files cannot be given together", hint="Give one of them."
        )
    if database:
        run.database(database)
    if files:
        run.folder(files)
    return database or files


def with_sets(run: Run) -> list[str]:
    """Return the sources whose sets may be asked for.

    They are those of the configuration. If it names none, as on a new machine, they
    are all whose sets a store holds, even sets that cannot be used.

    Raises:
        UsageError: there is none.
    """
    configured = [
        *run.settings.databases, *run.found.databases, *run.settings.files,
    ]  # fmt: skip
    if configured:
        return configured
    listing = run.listing()
    usable = [each.source for each in listing.sets]
    unusable = [each.key.partition("/")[0] for each in listing.unreadable]
    if not usable and not unusable:
        raise UsageError(
            "there is no backup set to drill",
            hint="Name a store that holds one, or take one with `inv backup`.",
        )
    return list(dict.fromkeys(usable + unusable))


def of_sets(run: Run, *, database: str = "", files: str = "") -> str:
    """Return the source that the flags name, configured or one that has sets.

    Raises:
        UsageError: they name two, or one that is neither configured nor has sets.
    """
    if database and files:
        return named(run, database=database, files=files)
    name = database or files
    if not name:
        return name
    if name in run.settings.databases or name in run.settings.files:
        return named(run, database=database, files=files)
    listing = run.listing(name)
    if not listing.sets and not listing.unreadable:
        return named(run, database=database, files=files)
    return name


def build(run: Run, name: str) -> Source:
    """Return what backs up a configured source.

    Raises:
        ConfigurationError: the file with its URL cannot be read.
    """
    if name in run.settings.files:
        from opskit.folders.backup import FolderSource

        folder = run.folder(name)
        return FolderSource(
            name=name,
            path=folder.path,
            lock=service_lock(folder),
            exclude=folder.exclude,
            compression_level=folder.compression_level,
        )
    from opskit.backup.database import DatabaseBackup
    from opskit.backup.stream import usual_streams

    settings = run.database(name)
    return DatabaseBackup(
        name=name,
        url=settings.resolve_url(),
        installations=run.installations,
        exclude_tables=settings.exclude_tables,
        exclude_table_data=settings.exclude_table_data,
        lock_wait=settings.lock_wait,
        compression_level=settings.compression_level,
        streams=settings.streams or usual_streams(os.cpu_count() or 1),
        attempt=run.turn.token if run.turn else None,
    )


def policy(run: Run, name: str) -> RetentionSettings:
    """Return the rules of retention for a source: its own, or the general ones."""
    own = (
        run.folder(name).retention
        if name in run.settings.files
        else run.database(name).retention
    )
    return run.settings.retention.of_source(own)


def choose(run: Run, *, backup: str = "", at: str = "", source: str = "") -> BackupSet:
    """Return the set that is meant, read from its stores.

    Raises:
        UsageError: neither or both of an ID and a time are given, there is no such set,
            or several are meant.
    """
    if bool(backup) == bool(at):
        raise UsageError(
            "--backup and --at cannot be given together"
            if at
            else "--backup or --at is needed",
            hint="Give one of them; `inv backups` lists the sets.",
        )
    if backup:
        return run.listing().find(backup, source=source or None)
    time = parse_time(at)
    listing = run.listing(source or None)
    return listing.newest(source or listing.only_source(), at=time)


def parse_time(text: str) -> datetime:
    """Return a time of RFC 3339 or a shorter form; without a zone it is in UTC.

    Raises:
        UsageError: it is not a time.
    """
    plain = _BEFORE_ZONE.sub(lambda zone: "+00:00" if zone[1] else "", text.strip())
    try:
        time = datetime.fromisoformat(plain)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text} is not a time", hint="Write it as 2026-01-31T03:00:00Z."
        ) from None


def service_lock(folder: FolderSettings) -> ServiceLock | None:
    """Return the lock of the service that uses a folder, if it is configured."""
    if folder.lock_path is None:
        return None
    return ServiceLock(
        path=folder.lock_path, kind=folder.lock_kind, wait=folder.lock_wait
    )
