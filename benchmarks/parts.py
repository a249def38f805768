"""The parts of a run: each makes its servers, measures, and says what it found."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import buckets, dataset, servers
from benchmarks.backups import dumps, to_s3
from benchmarks.contenders import DATABASE, Contender, Place
from benchmarks.figures import ratios
from benchmarks.fleet import measure_fleet
from benchmarks.growth import measure_growth
from benchmarks.listing import measure_listing
from benchmarks.many_sets import measure_catalog
from benchmarks.memory import measure_memory
from benchmarks.nights import measure_nights
from benchmarks.options import Options, Part
from benchmarks.picture import bars
from benchmarks.repositories import archiving, pgbackrest, repositories
from benchmarks.restores import restores
from benchmarks.rounds import Result, in_turn, say, seconds_by_name
from benchmarks.stages import measure_stages
from benchmarks.tables import phases_table, ratios_table, results_table

# Twenty thousand tables are locked at once by whoever dumps them.
SOURCE_SETTINGS = (
    "max_locks_per_transaction=1024",
    "archive_mode=on",
    # A worker of a fleet has some connections, and each of its jobs two more.
    "max_connections=500",
)


@contextlib.contextmanager
def place(options: Options) -> Iterator[Place]:
    """Run a source server and yield where contenders work; all is gone afterwards."""
    with _folder(options) as folder:
        installation = servers.choose()
        with servers.ordinary(
            installation, folder / "source", settings=SOURCE_SETTINGS
        ) as source:
            # Not on its command line, which nothing could change while it runs.
            source.psql("postgres", "ALTER SYSTEM SET archive_command = '/bin/true';")
            source.psql("postgres", "SELECT pg_reload_conf();")
            yield Place(source=source, folder=folder, jobs=options.jobs)


@contextlib.contextmanager
def filled(options: Options) -> Iterator[Place]:
    """Yield the place with the database of the size that is asked for."""
    with place(options) as made:
        say(f"building {options.size_mb:g} MB")
        dataset.build(made.source, DATABASE, size_mb=options.size_mb)
        yield made


def backup(options: Options) -> Part:
    """Backups into a folder."""
    with filled(options) as here:
        repository = here.folder / "archiving"
        with archiving(here.source, repository) as settings:
            physical = pgbackrest(here, settings)
            found = _measure(options, [*dumps(here), *repositories(here), physical])
    return _part("backup", "Backups into a folder", found)


def s3(options: Options) -> Part:
    """Backups into a bucket on the loopback."""
    with filled(options) as here, buckets.seaweedfs(here.folder / "s3") as server:
        contenders = to_s3(
            here, server.place, server_pid=server.pid, clean=server.empty
        )
        found = _measure(options, contenders)
    return _part("s3", "Backups to S3", found)


def drill(options: Options) -> Part:
    """Drills and restores."""
    with filled(options) as here:
        programs = here.source.installation
        with servers.ordinary(programs, here.folder / "target") as target:
            found = _measure(options, restores(here, target))
    return _part("drill", "Drills and restores", found)


def listing(options: Options) -> Part:
    """The list of tasks."""
    with _folder(options) as folder:
        return measure_listing(options, folder)


def catalog(options: Options) -> Part:
    """Ten thousand sets."""
    with _folder(options) as folder, buckets.seaweedfs(folder / "s3") as bucket:
        return measure_catalog(options, folder, bucket)


def memory(options: Options) -> Part:
    """Two sizes an order apart."""
    with place(options) as here:
        return measure_memory(options, here)


def curves(options: Options) -> Part:
    """Three sizes and three numbers of tables."""
    with place(options) as here:
        return measure_growth(options, here)


def stages(options: Options) -> Part:
    """Each stage by itself, and what follows for larger machines."""
    with filled(options) as here, buckets.seaweedfs(here.folder / "s3") as bucket:
        return measure_stages(options, here, bucket)


def nights(options: Options) -> Part:
    """Simulated nights of a fleet."""
    return measure_nights(options)


def fleet(options: Options) -> Part:
    """The queue of a fleet, and its workers."""
    with place(options) as here:
        return measure_fleet(options, here)


@contextlib.contextmanager
def _folder(options: Options) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="opskit-bench-", dir=options.work_dir, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the servers run as another user where we are root
        yield folder


def _measure(options: Options, contenders: Sequence[Contender]) -> list[Result]:
    return in_turn(
        contenders, rounds=options.rounds, timeout_seconds=options.timeout_seconds
    )


def _part(name: str, title: str, found: Sequence[Result]) -> Part:
    reached = ratios(seconds_by_name(found))
    seconds = {each.name: each.seconds for each in found if not each.missing}
    text = f"## {title}\n\n{ratios_table(reached)}\n{results_table(found)}"
    data = [each.as_data() for each in found]
    return Part(
        name=name,
        text=text + "".join(map(phases_table, found)),
        pictures={name: bars(f"{title}: seconds, median", seconds)} if seconds else {},
        data={"ratios": [asdict(each) for each in reached], "results": data},
    )
