"""How fast each part of the way is by itself, and what follows on paper."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shlex import quote
from unittest.mock import patch

from benchmarks.backups import recipient
from benchmarks.buckets import Bucket
from benchmarks.contenders import Place
from benchmarks.measure import cpu_seconds_of
from benchmarks.model import Stage, limit
from benchmarks.options import Options, Part
from benchmarks.tables import markdown
from opskit.backup.stream import LEVEL, compressed
from opskit.config import StoreSettings
from opskit.crypto.age import encrypted
from opskit.postgres.archive.reader import ArchiveReader
from opskit.postgres.servers.throwaway import throwaway
from opskit.store import open_store

_CHUNK_BYTES = 1024 * 1024
_MB = 1_000_000
_ZSTD_THREADS = 4
_MACHINES = ((2, 1), (8, 1), (32, 1), (32, 4), (32, 16))
_SECONDS_MAX = 7200


def measure_stages(options: Options, here: Place, bucket: Bucket) -> Part:
    """Time every stage by itself, and tell which is the limit of larger machines."""
    archive, packed = here.folder / "archive", here.folder / "packed"
    stages = _backup_stages(options, here, bucket, archive, packed)
    restores = _restore_stages(options, here, archive)
    head = ["stage", "MB of the dump a second", "processors busy", "at once, a stream"]
    rows = [
        [
            each.name,
            f"{each.mb_per_second:,.0f}",
            f"{each.cores:.1f}",
            str(each.at_once or "one for all"),
        ]
        for each in (*stages, *restores)
    ]
    ways = {
        "backup into a folder": [each for each in stages if each.name not in _AWAY],
        "backup to S3, encrypted": [each for each in stages if each.name != _DISK],
        "loading the rows of a restore": restores[:1],
        "building its indexes": restores[1:],
    }
    return Part(
        name="stages",
        text="## On paper: 1 TB, 32 cores\n\n"
        + f"{markdown(head, rows)}\n{_on_paper(ways)}",
        data={each.name: each.mb_per_second for each in (*stages, *restores)},
    )


_DISK, _AGE, _S3 = "write and fsync", "age", "upload to S3 on the loopback"
_AWAY = (_AGE, _S3)


def _on_paper(ways: dict[str, list[Stage]]) -> str:
    head = ["way", "processors", "streams", "the limit", "MB/s", "minutes for 1 TB"]
    rows = []
    for way, stages in ways.items():
        for cores, streams in _MACHINES:
            found = limit(stages, cores=cores, streams=streams)
            rate, minutes = found.mb_per_second, found.minutes_a_terabyte
            where = [way, str(cores), str(streams), found.name]
            rows.append([*where, f"{rate:,.0f}", f"{minutes:,.0f}"])
    return markdown(head, rows)


def _backup_stages(
    options: Options, here: Place, bucket: Bucket, archive: Path, packed: Path
) -> list[Stage]:
    _shell(f"{here.archive} >{quote(str(archive))}")
    _pack(archive, packed)
    size = archive.stat().st_size

    def stage(name: str, at_once: int, work: Callable[[], object]) -> Stage:
        seconds, cores = _timed(work, options.rounds, here.source.pid)
        rate = size / _MB / seconds
        return Stage(name=name, mb_per_second=rate, cores=cores, at_once=at_once)

    def read() -> None:
        reader = ArchiveReader()
        for chunk in _chunks(archive):
            reader.feed(chunk)
        reader.close()

    store = open_store(
        "s3",
        StoreSettings.model_validate(
            {
                "url": f"s3://{bucket.place.bucket}/stages",
                "endpoint_url": bucket.place.endpoint_url,
                "region": "us-east-1",
                "addressing": "path",
            }
        ),
    )
    names = (f"upload-{number}" for number in range(options.rounds))
    written = here.folder / "written"
    with patch.dict(os.environ, bucket.place.environment):
        return [
            stage("`pg_dump -Fc -Z0`", 1, lambda: _shell(f"{here.archive} >/dev/null")),
            stage("reading and digesting, in one process", 0, read),
            stage(
                f"zstd, level {LEVEL}, one thread",
                _ZSTD_THREADS,
                lambda: _pack(archive, written),
            ),
            stage("SHA-256 of what is stored", 1, lambda: _sum(_chunks(packed))),
            stage(_AGE, 1, lambda: _sum(encrypted(_chunks(packed), [recipient()]))),
            stage(_DISK, 0, lambda: _write(written, _chunks(packed))),
            stage(_S3, 1, lambda: store.put(next(names), _chunks(packed))),
        ]


def _restore_stages(options: Options, here: Place, archive: Path) -> list[Stage]:
    """Load the archive into a throw-away server: rows by one process, then the rest."""
    size_mb = archive.stat().st_size / _MB
    with throwaway(here.source.installation, base=here.folder) as server:
        programs = server.installation
        restore = f"{programs.program('pg_restore')} -e --no-owner "
        restore += f"-d {quote(server.url('copy'))}"
        sections = {
            "loading rows, one job": "--section=pre-data --section=data",
            "building indexes, one job": "--section=post-data",
        }
        seconds: dict[str, list[float]] = {name: [] for name in sections}
        for _ in range(options.rounds):
            psql = f"{programs.program('psql')} -Xq {quote(server.url())} -c "
            _shell(f"{psql} 'DROP DATABASE IF EXISTS copy' 2>/dev/null")
            _shell(f"{psql} 'CREATE DATABASE copy TEMPLATE template0'")
            for name, section in sections.items():
                began = time.perf_counter()
                _shell(f"{restore} {section} {quote(str(archive))}")
                seconds[name].append(time.perf_counter() - began)
    return [
        Stage(name=name, mb_per_second=size_mb / min(each), cores=1.0, at_once=1)
        for name, each in seconds.items()
    ]


def _timed(work: Callable[[], object], rounds: int, server: int) -> tuple[float, float]:
    """Return the seconds of the quickest round, and how many processors it had busy.

    Not the median: this is about what a stage can do, and others only slow it down.
    """
    found = []
    for _ in range(rounds):
        before = sum(os.times()[:4]) + cpu_seconds_of([server])
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        busy = sum(os.times()[:4]) + cpu_seconds_of([server]) - before
        found.append((seconds, busy / seconds))
    return min(found)


def _shell(script: str) -> None:
    subprocess.run(["bash", "-ec", script], check=True, timeout=_SECONDS_MAX)


def _pack(archive: Path, target: Path) -> None:
    # As one of so many streams that it has no thread but this one.
    with target.open("wb") as sink:
        for chunk in compressed(_chunks(archive), streams=os.cpu_count() or 1):
            sink.write(chunk)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _sum(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
