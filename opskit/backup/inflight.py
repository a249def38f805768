"""Which sets this host is writing: what the next run removes if this one is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opskit import files
from opskit.catalog.naming import MANIFEST_NAME
from opskit.errors import ObjectNotFound, StoreError
from opskit.log import logger
from opskit.store import Store


@contextmanager
def writing(directory: Path, *, source: str, prefix: str) -> Iterator[None]:
    """Note on disk that a set is being written, until the block has ended in order.

    The caller holds the lock of the source. An error inside the block leaves the note,
    unless the caller has removed the set and calls `forget`.
    """
    files.make_directories(directory)
    path = _path(directory, source, prefix)
    files.write_text(path, json.dumps({"source": source, "prefix": prefix}))
    yield
    _drop(path)


def forget(directory: Path, *, source: str, prefix: str) -> None:
    """Drop the note of a set that was removed again."""
    _drop(_path(directory, source, prefix))


def _drop(path: Path) -> None:
    """Remove a note; one that stays costs the next run a look into the stores."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger().warning(
            "a note cannot be removed", path=str(path), reason=error.strerror
        )


def clean_up(directory: Path, *, source: str, stores: Sequence[Store]) -> list[str]:
    """Remove what killed runs of a source left in the stores; return their places.

    The caller holds the lock of the source, so no run that has a note is alive. A run
    that died after its manifest was written has made its set, which stays.
    """
    removed = []
    for path in sorted(directory.glob(f"{source}@*.json")):
        try:
            prefix = str(json.loads(path.read_text(encoding="utf-8"))["prefix"])
        except (ValueError, KeyError, TypeError):
            # What it was about is lost; prune removes such orphans after a day.
            logger().error("dropping a note that cannot be read", path=str(path))
            _drop(path)
            continue
        clean = True
        for store in stores:
            try:
                if not _exists(store, prefix + MANIFEST_NAME):
                    store.discard(prefix)
                    removed.append(prefix)
                    logger().warning("removed what a killed backup left", place=prefix)
            except StoreError as error:
                clean = False
                logger().error("cannot clean up", store=store.name, error=error.message)
        if clean:
            _drop(path)
    return removed


def _exists(store: Store, key: str) -> bool:
    try:
        store.stat(key)
    except ObjectNotFound:
        return False
    return True


def _path(directory: Path, source: str, prefix: str) -> Path:
    return directory / f"{source}@{prefix.rstrip('/').rpartition('/')[2]}.json"
