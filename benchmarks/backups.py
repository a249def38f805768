"""Backups of the one database: opskit's, PostgreSQL's own tools, and rclone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote

from benchmarks import dataset
from benchmarks.contenders import Contender, Place, opskit_backup, shell
from benchmarks.user import S3Place


def dumps(place: Place) -> list[Contender]:
    """Return opskit into a folder, and PostgreSQL's own tools."""
    tables = dataset.table_names(place.source, place.database)
    copies = "".join(f"COPY {each} TO STDOUT;\n" for each in tables)
    psql = f"{quote(place.source.installation.program('psql'))} -Xq"
    return [
        opskit_backup(
            place,
            "opskit",
            "`opskit backup` into a folder: digests, manifest, fsync",
        ),
        shell(
            place,
            "bare",
            "`pg_dump -Fc -Z0`, `zstd -3 -T0`, `sha256sum`, into an fsynced file",
            f"{place.archive} | zstd -q -3 -T0 | tee out/dump | sha256sum >out/sum; "
            "sync out/dump out/sum out",
            needs=["zstd", "sha256sum"],
        ),
        opskit_backup(
            place,
            "opskit-encrypted",
            "the same as opskit, encrypted with age",
            recipient=recipient(),
        ),
        opskit_backup(
            place,
            "opskit-level-1",
            "the same as opskit, with `compression_level = 1`",
            options={"compression_level": 1},
        ),
        opskit_backup(
            place,
            "opskit-2-streams",
            "the same as opskit, with `streams = 2`",
            options={"streams": 2},
        ),
        shell(
            place,
            "copy-floor",
            "the floor: `COPY` of every table in one session, to nowhere",
            f"{psql} -v ON_ERROR_STOP=1 -f copies.sql {quote(place.url)} >/dev/null",
            setup=lambda folder: _write(folder / "copies.sql", copies),
        ),
        shell(
            place,
            "pg_dump-Fc",
            "`pg_dump -Fc`, gzip inside",
            f"{place.dump} -Fc -f out/dump",
        ),
        shell(
            place,
            "pg_dump-Fd",
            f"`pg_dump -Fd -j{place.jobs}`, gzip inside",
            f"{place.dump} -Fd -j {place.jobs} -f out/dump",
        ),
        shell(
            place,
            "pg_dump-zstd",
            "plain `pg_dump`, `zstd -3 -T0`, no digest, no fsync",
            f"{place.dump} | zstd -q -3 -T0 -o out/dump",
            needs=["zstd"],
        ),
    ]


def to_s3(
    place: Place, s3: S3Place, *, server_pid: int, clean: Callable[[], None]
) -> list[Contender]:
    """Return opskit and rclone into the same bucket."""
    remote = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_S3_TYPE": "s3",
        "RCLONE_CONFIG_S3_PROVIDER": "Other",
        "RCLONE_CONFIG_S3_ENV_AUTH": "true",
        "RCLONE_CONFIG_S3_ENDPOINT": s3.endpoint_url,
        "RCLONE_CONFIG_S3_REGION": "us-east-1",
    }
    rclone = shell(
        place,
        "rclone",
        "`pg_dump -Fc -Z0`, `zstd -3 -T0`, `rclone rcat` into the same bucket",
        f"{place.archive} | zstd -q -3 -T0 | rclone rcat s3:{s3.bucket}/rclone/dump",
        setup=lambda _folder: clean(),
        needs=["zstd", "rclone"],
        environment=remote | s3.environment,
        servers=[server_pid],
    )
    ours = opskit_backup(
        place,
        "opskit-s3",
        "`opskit backup` into a bucket on the loopback",
        s3=s3,
        servers=[server_pid],
        clean=clean,
    )
    return [ours, rclone]


def recipient() -> str:
    """Return the public key of a new identity that nobody keeps."""
    import pyrage  # type: ignore[import-untyped]

    return str(pyrage.x25519.Identity.generate().to_public())


def _write(path: Path, text: str) -> None:
    path.write_text(text)
