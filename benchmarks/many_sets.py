"""A catalog of very many sets: how long listing and pruning take, what they ask."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from statistics import median

from benchmarks.buckets import Bucket
from benchmarks.measure import Measured, run
from benchmarks.options import Options, Part
from benchmarks.rounds import say
from benchmarks.servers import choose
from benchmarks.tables import markdown
from benchmarks.user import SOURCE, S3Place, User, make_user
from opskit.catalog.manifest import MANIFEST_NAME
from tests.proxy import proxy_to
from tests.unit.builders import CONTENTS, manifest

_THREADS = 8
_APART = timedelta(hours=1)
_NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"
_CALLS = (("backups", "--json"), ("prune", "--dry-run", "--json"))
_MB = 1_000_000


def measure_catalog(options: Options, folder: Path, bucket: Bucket) -> Part:
    """Write sets into a folder and a bucket, then list them and plan their end."""
    say(f"writing {options.sets:,} sets into a folder and a bucket")
    local = _user(folder / "local", None)
    _write_sets(
        options.sets, lambda key, content: _write_file(local.store / key, content)
    )
    with contextlib.closing(bucket.client()) as client:

        def put(key: str, content: bytes) -> None:
            client.put_object(
                Bucket=bucket.place.bucket, Key=f"opskit/{key}", Body=content
            )

        _write_sets(options.sets, put)
    remote = _user(folder / "remote", bucket.place)
    rows, data = [], []
    places = (("folder", local), ("bucket", remote))
    for call, (where, user), known in product(_CALLS, places, (False, True)):
        say(f"{' '.join(call)}, {where}")
        asked = None
        if where == "bucket":
            asked = _asked(user, call, options, bucket, known=known)
        runs = _runs(user, call, options, known=known)
        row = _row(call, where, runs, asked, known=known)
        rows.append(row)
        data.append(dict(zip(_HEAD, row, strict=True)))
    return Part(
        name="catalog",
        text=f"## A catalog of {options.sets:,} sets\n\n{markdown(_HEAD, rows)}",
        data=data,
    )


_HEAD = ["command", "store", "state folder", "seconds", "CPU s", "peak MB", "requests"]


def _row(
    call: tuple[str, ...],
    where: str,
    runs: list[Measured],
    asked: Counter[str] | None,
    *,
    known: bool,
) -> list[str]:
    requests = ", ".join(f"{name} {n:,}" for name, n in (asked or {}).items())
    return [
        " ".join(call),
        where,
        "of a run before" if known else "empty",
        f"**{median(each.seconds for each in runs):.2f}**",
        f"{median(each.cpu_seconds for each in runs):.2f}",
        f"{max(each.own_peak_bytes for each in runs) / _MB:.0f}",
        requests,
    ]


def _user(folder: Path, s3: S3Place | None) -> User:
    return make_user(folder, url=_NO_DATABASE, installation=choose(), jobs=1, s3=s3)


def _call(user: User, call: tuple[str, ...], options: Options) -> Measured:
    return run(
        user.command(*call),
        folder=user.folder,
        environment=user.environment,
        timeout_seconds=options.timeout_seconds,
    )


def _runs(
    user: User, call: tuple[str, ...], options: Options, *, known: bool
) -> list[Measured]:
    """Call it in each round: after a run before, or in a state folder that is empty."""
    _forget(user)
    if known:
        _call(user, call, options)
    runs = []
    for _ in range(options.rounds):
        if not known:
            _forget(user)
        runs.append(_call(user, call, options))
    return runs


def _asked(
    user: User,
    call: tuple[str, ...],
    options: Options,
    bucket: Bucket,
    *,
    known: bool,
) -> Counter[str]:
    """Count the requests of one call; the proxy takes time, so its time is not told."""
    with proxy_to(bucket.place.endpoint_url) as proxy:
        changed = {"OPSKIT_STORES__S3__ENDPOINT_URL": proxy.endpoint_url}
        through = User(folder=user.folder, environment=user.environment | changed)
        _forget(user)
        if known:
            _call(through, call, options)
            proxy.heal()
        _call(through, call, options)
        return proxy.counts()


def _forget(user: User) -> None:
    shutil.rmtree(user.folder / ".opskit", ignore_errors=True)


def _write_sets(count: int, put: Callable[[str, bytes], None]) -> None:
    """Write whole sets, the newest of now, each an hour before the next."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

    def write(number: int) -> None:
        made = manifest(SOURCE, now - number * _APART, suffix=f"{number:06x}")
        for each in made.objects:
            put(each.key, CONTENTS[each.role])
        put(made.prefix + MANIFEST_NAME, made.to_json())

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(write, range(1, count + 1)):
            pass


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
