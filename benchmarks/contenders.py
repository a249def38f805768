"""What takes turns: opskit and the tools that a user would pick instead."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from benchmarks.servers import Server
from benchmarks.user import S3Place, make_user, plain_environment

DATABASE = "data"


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A command that is measured, and what goes on around it unmeasured.

    Args:
        name: what the tables call it.
        what: what it does, for a person.
        command: what is run in its folder.
        prepare: makes its folder as it was before any run.
        clean: frees the disk again.
        servers: processes whose time is told beside its own.
        own_servers: processes whose time and memory are its own.
        result: what it left; its size is told.
        missing: why it cannot be run here.
    """

    name: str
    what: str
    command: Sequence[str] = ()
    folder: Path = Path()
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = _nothing
    clean: Callable[[], None] = _nothing
    servers: Sequence[int] = ()
    own_servers: Sequence[int] = ()
    result: Path | None = None
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What all contenders share: the source, a folder of their own, the jobs."""

    source: Server
    folder: Path
    jobs: int
    database: str = DATABASE

    @property
    def url(self) -> str:
        """The database that is backed up."""
        return self.source.url(self.database)

    @property
    def dump(self) -> str:
        """The start of a shell's command that dumps it."""
        return (
            f"{quote(self.source.installation.program('pg_dump'))} -d {quote(self.url)}"
        )

    @property
    def archive(self) -> str:
        """A command that writes the archive, uncompressed, to standard output."""
        return f"{self.dump} -Fc -Z0"


def shell(
    place: Place,
    name: str,
    what: str,
    script: str,
    *,
    setup: Callable[[Path], None] | None = None,
    needs: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    servers: Sequence[int] = (),
    own_servers: Sequence[int] = (),
    fixed: Path | None = None,
) -> Contender:
    """Return a contender that is a shell's pipeline, any of whose parts may fail it.

    It runs in a folder that is new each time, and writes below `out` there. `setup`
    makes there what a user would have long made; `fixed` is a folder that stays.
    """
    folder = place.folder / name
    path = str(Path(sys.executable).parent)
    absent = [each for each in needs if not _which(each)]
    if absent:
        return Contender(name=name, what=what, missing=f"no {', '.join(absent)} here")

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        if setup is not None:
            setup(folder)

    plain = plain_environment(folder)
    return Contender(
        name=name,
        what=what,
        command=["bash", "-o", "pipefail", "-ec", script],
        folder=folder,
        environment=plain | {"PATH": f"{path}:{plain['PATH']}"} | (environment or {}),
        prepare=prepare,
        clean=lambda: shutil.rmtree(folder, ignore_errors=True),
        servers=[place.source.pid, *servers],
        own_servers=own_servers,
        result=fixed or folder / "out",
    )


def opskit_backup(
    place: Place,
    name: str,
    what: str,
    *,
    s3: S3Place | None = None,
    recipient: str = "",
    options: Mapping[str, int] | None = None,
    servers: Sequence[int] = (),
    clean: Callable[[], None] = _nothing,
) -> Contender:
    """Return `opskit backup` with a configuration of its own."""
    user = make_user(
        place.folder / name,
        url=place.url,
        installation=place.source.installation,
        jobs=place.jobs,
        s3=s3,
        recipient=recipient,
        options=options,
    )

    def tidy() -> None:
        user.forget()
        clean()

    return Contender(
        name=name,
        what=what,
        command=user.command("backup", "--json"),
        folder=user.folder,
        environment=user.environment,
        prepare=tidy,
        clean=tidy,
        servers=[place.source.pid, *servers],
        result=None if s3 else user.store,
    )


def _which(program: str) -> str | None:
    beside = Path(sys.executable).parent
    return shutil.which(program, path=str(beside)) or shutil.which(program)
