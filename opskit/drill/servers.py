"""Where a drill restores to: programs of this machine, a container, a named server."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from opskit.config import DrillSettings
from opskit.errors import (
    ClientToolError,
    ConfigurationError,
    DatabaseError,
    ExtraMissing,
)
from opskit.log import logger
from opskit.postgres import database, extensions, scratch, survey
from opskit.postgres.connect import connect, query_value, server_major
from opskit.postgres.inventory import Inventory
from opskit.postgres.parameters import with_database
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import Installation, find_server
from opskit.preflight.shortages import NEVER_DONE_WITHOUT, Shortage
from opskit.restore.surroundings import REFERENCE_SUFFIX, Place
from opskit.threads import Pool

_DEFAULT_IMAGE = "postgres:{major}"
# To fetch the image and start.
_CONTAINER_SECONDS_MAX = 1800


@dataclass(frozen=True, kw_only=True)
class DrillServer:
    """A running server to drill on. `url` leads to one of its databases by name.

    `confinement` says what a throw-away server of programs is kept apart from.
    """

    description: str
    confinement: str = ""
    major: int
    is_throwaway: bool = True
    url: Callable[[str], str] = field(repr=False)

    @property
    def full_description(self) -> str:
        return ", ".join(filter(None, (self.description, self.confinement)))


def open_server(
    settings: DrillSettings, installations: Sequence[Installation], source: Inventory
) -> contextlib.AbstractContextManager[DrillServer]:
    """Return a server for a set; a throw-away one is gone when the block ends.

    `source` describes the database that the set is from.

    Raises:
        ClientToolError: there is none of the set's major.
        ConfigurationError: the named server is the source itself.
        DatabaseError: it does not start, or is unreachable.
    """
    if settings.server == "existing":
        return _existing(settings, source)
    installation = _installation(settings, installations, source.server_major)
    if installation is None:
        return _container(settings, source.server_major)
    return _programs(settings, installation, source)


@contextlib.contextmanager
def opening_server(
    settings: DrillSettings, installations: Sequence[Installation], source: Inventory
) -> Iterator[Callable[[], DrillServer]]:
    """Open a server beside what the block does; yield a call that waits for it.

    Only one of programs starts meanwhile, which takes no longer than a moment: whoever
    breaks off waits for that. Any other one is opened by the call, which raises what
    `open_server` does.
    """
    with contextlib.ExitStack() as stack:

        def enter() -> DrillServer:
            return stack.enter_context(open_server(settings, installations, source))

        if not _is_of_programs(settings, installations, source.server_major):
            yield enter
            return
        with Pool(1) as pool:  # leaving it waits for the thread
            yield pool.submit(enter).result


def _is_of_programs(
    settings: DrillSettings, installations: Sequence[Installation], major: int
) -> bool:
    try:
        installation = _installation(settings, installations, major)
    except ClientToolError:
        return False  # said in its turn
    return settings.server != "existing" and installation is not None


def _installation(
    settings: DrillSettings, installations: Sequence[Installation], major: int
) -> Installation | None:
    """Return the programs to start a server with, None where it is a container."""
    if settings.server == "container":
        return None
    try:
        return find_server(
            installations,
            major=major,
            kind=settings.server,
            accept_newer=settings.accept_newer_major,
        )
    except ClientToolError:
        # An image that the user named is as good, where nothing else is at hand.
        if settings.server != "auto" or not settings.image:
            raise
        return None


@contextlib.contextmanager
def _programs(
    settings: DrillSettings, installation: Installation, source: Inventory
) -> Iterator[DrillServer]:
    major, kind = (
        installation.major,
        "embedded" if installation.embedded else "installed",
    )
    preloading = extensions.settings(installation, source.preloaded)
    with throwaway.throwaway(
        installation,
        base=settings.work_dir,
        settings=preloading | dict(settings.settings),
    ) as running:
        yield DrillServer(
            description=_describe(
                installation.version, major, source.server_major, kind
            ),
            confinement=running.confinement,
            major=major,
            url=running.url,
        )


@contextlib.contextmanager
def _container(settings: DrillSettings, needed: int) -> Iterator[DrillServer]:
    try:
        from opskit.postgres.servers.container import container
    except ImportError as error:
        raise ExtraMissing(
            "containers cannot be used", said=str(error), extra="container"
        ) from error
    image = (settings.image or _DEFAULT_IMAGE).replace("{major}", str(needed))
    with container(
        image=image,
        memory=settings.memory,
        cpus=settings.cpus,
        settings=settings.settings,
        base=settings.work_dir,
        timeout_seconds=_CONTAINER_SECONDS_MAX,
    ) as running:
        major = running.major
        _require_major(major, needed, settings, f"the image {image}")
        description = _describe(running.version, major, needed, f"container of {image}")
        yield DrillServer(description=description, major=major, url=running.url)


@contextlib.contextmanager
def _existing(settings: DrillSettings, source: Inventory) -> Iterator[DrillServer]:
    existing_url = settings.resolve_existing_url()
    if not existing_url:
        raise ConfigurationError(
            '[drill] server = "existing" needs the address of the server',
            hint="Set existing_url in [drill], or existing_url_file.",
        )
    with connect(existing_url, purpose="drill") as connection:
        major = server_major(connection)
        version = str(query_value(connection, "SHOW server_version")).split()[0]
        identifier = survey.system_identifier(connection)
        is_superuser = survey.is_superuser(connection)
    is_source = identifier == source.system_identifier
    if is_source and not settings.on_source_server:
        raise ConfigurationError(
            "[drill] existing_url leads to the very server that the set is from "
            "(or to a standby or a physical copy of it)",
            hint="Name another server. If the load and the space on this one do not "
            "matter, set on_source_server = true in [drill].",
        )
    if not is_superuser:
        raise ConfigurationError(
            "the role of [drill] existing_url is no superuser",
            hint="Objects of any owner are restored and settings of any kind; name a "
            "superuser of a server that is there for drills.",
        )
    _require_major(major, source.server_major, settings, "the server of existing_url")
    description = _describe(version, major, source.server_major, "existing")
    yield DrillServer(
        description=description + (", the source's own" if is_source else ""),
        major=major,
        is_throwaway=False,
        url=lambda name: with_database(existing_url, name),
    )


def _require_major(
    major: int, needed: int, settings: DrillSettings, where: str
) -> None:
    """Refuse an older major always, a newer one unless the user accepts it."""
    if major == needed or (major > needed and settings.accept_newer_major):
        return
    raise ClientToolError(
        f"{where} is PostgreSQL {major}, the set is from {needed}",
        hint="Name one of the same major"
        + (
            ", or set [drill] accept_newer_major = true to drill on the newer one."
            if major > needed
            else "; a dump does not go back to an older one."
        ),
    )


def _describe(version: str, major: int, needed: int, kind: str) -> str:
    newer = ""
    if major != needed:
        newer = f", newer than the source's {needed}"
        logger().warning(
            "the drill runs on a newer major", source=needed, drill_server=major
        )
    return f"PostgreSQL {version} ({kind}{newer})"


_CONTAINER_HINT = 'server = "container" in [drill] runs any image. '


def require_allowed(
    server: str, missing: Sequence[Shortage], allowed: Sequence[str]
) -> None:
    """Go on without what is allowed by name.

    Raises:
        DatabaseError: the server lacks something else.
    """
    refused = [
        each
        for each in missing
        if each.name not in allowed or each.what in NEVER_DONE_WITHOUT
    ]
    if refused:
        raise lacking(server, refused)
    for each in missing:
        logger().warning("drilling without", missing=each.name, allowed_in="[drill]")


def lacking(server: str, refused: Sequence[Shortage]) -> DatabaseError:
    """Return the error that names all that a server lacks, and what to do."""
    names = ", ".join(json.dumps(each.name, ensure_ascii=False) for each in refused)
    container = any(each.what.startswith("extension") for each in refused)
    missing = [{"name": e.name, "detail": e.detail, "hint": e.hint} for e in refused]
    return DatabaseError(
        f"{server} lacks what the set needs",
        said="; ".join(each.detail for each in refused),
        hint=f"{refused[0].hint} {_CONTAINER_HINT if container else ''}"
        "To drill without, with evidence that says what was not checked, set "
        f"allow = [{names}] in [drill].",
        details={"missing": missing},
    )


_SCRATCH = "opskit_drill_"
_LEFTOVER = f"{_SCRATCH}[0-9a-f]{{12}}({REFERENCE_SUFFIX})?"
_FIRST_DATABASES = ("postgres", "template1")


@contextlib.contextmanager
def place_beside(running: DrillServer, source: str, run_id: str) -> Iterator[Place]:
    """Yield a place for a copy of the database `source`.

    On a throw-away server the copy has the source's own name. On another one it has a
    name of its own and the mark of this run; it is dropped with the block, and what
    killed runs left there is dropped first.
    """
    if running.is_throwaway:
        beside = next(each for each in _FIRST_DATABASES if each != source)
        with connect(running.url(beside), purpose="drill") as connection:
            if database.exists(connection, source):
                database.drop_template(connection, source)
            yield Place(
                server_url=running.url(source),
                connection=connection,
                name=source,
                is_throwaway=True,
            )
        return
    name = f"{_SCRATCH}{secrets.token_hex(6)}"
    url = running.url("postgres")
    with database.maintenance(url, purpose="drill") as connection:
        scratch.sweep(connection, url, looks_like=_LEFTOVER)
        place = Place(server_url=url, connection=connection, name=name, run_id=run_id)
        try:
            yield place
        finally:
            for each in (place.name, place.reference):
                scratch.drop_copy(connection, url, each)
