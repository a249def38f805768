"""Creates a backup set: objects first, the manifest last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from opskit import __version__, files
from opskit.catalog import private
from opskit.catalog.manifest import (
    DUE_VERSION,
    ONE_DUMP_VERSION,
    SIGNATURE_NAME,
    STREAMS_VERSION,
    Encryption,
    Manifest,
    SignatureNote,
    StoredObject,
    from_document,
    is_bounded,
)
from opskit.catalog.places import (
    attempt_folder,
    backup_id_of,
    new_backup_id,
    set_prefix,
)
from opskit.catalog.writer import Protection, SetWriter, is_of_a_set
from opskit.crypto import signatures
from opskit.errors import BackupFailed, ObjectExists, StoreError
from opskit.log import logger
from opskit.store import Store


class OpenSource(Protocol):
    """A source that nobody changes, or one moment of it."""

    def write(self, writer: SetWriter) -> dict[str, Any]:
        """Store the contents and return the manifest's fields about them.

        Raises:
            BackupFailed: they are not whole.
        """

    def guide(
        self,
        backup_id: str,
        objects: Sequence[StoredObject],
        *,
        encrypted: bool,
        signed: bool,
    ) -> str:
        """Return RESTORE.md for what was written."""

    def require_held(self) -> None:
        """Check that no other run can have begun since.

        Raises:
            OpskitError: the lock was lost.
        """


class Source(Protocol):
    """Something that backup sets are made of."""

    @property
    def name(self) -> str:
        """The name that the configuration gives it."""

    def opened(
        self, *, run_id: str, clock: Callable[[], datetime]
    ) -> AbstractContextManager[OpenSource]:
        """Lock the source and yield it, ready to be read.

        Raises:
            LockHeld: another run has it.
        """


@contextmanager
def _writing(
    directory: Path, writer: SetWriter, stores: Sequence[Store], source: str
) -> Iterator[None]:
    """Note on disk that a set is being written; on an error, remove what there is.

    The caller holds the lock of the source. The note stays where that fails.
    """
    files.make_directories(directory)
    name = "@".join(writer.place.rstrip("/").split("/")[2:])
    path = directory / f"{source}@{name}.json"
    note = {"source": source, "prefix": writer.place}
    files.write_text(path, json.dumps(note))
    try:
        yield
    except BaseException:
        # Also for Ctrl-C. What cannot be removed now, the next run removes.
        if not writer.is_set and writer.discard(stores):
            _drop(path)
        raise
    _drop(path)


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
    that died after its manifest was written has made its set, which stays. So does a
    set that another run has made in the same place.
    """
    removed = []
    for path in sorted(directory.glob(f"{source}@*.json")):
        try:
            place = str(json.loads(path.read_text(encoding="utf-8"))["prefix"])
        except (ValueError, KeyError, TypeError):
            # What it was about is lost; prune removes such orphans after a day.
            logger().error("dropping a note that cannot be read", path=str(path))
            _drop(path)
            continue
        clean = True
        for store in stores:
            try:
                if not is_of_a_set(store, place):
                    store.discard(place)
                    removed.append(place)
                    logger().warning("removed what a killed backup left", place=place)
            except StoreError as error:
                clean = False
                logger().error("cannot clean up", store=store.name, error=error.message)
        if clean:
            _drop(path)
    return removed


# Holds the lock in one store, and yields what raises an error once it is lost.
LockStore = Callable[[Store], AbstractContextManager[Callable[[], None]]]


def no_lock(_store: Store) -> AbstractContextManager[Callable[[], None]]:
    """Lock nothing: for a store that nobody else knows."""
    return nullcontext(lambda: None)


@dataclass(kw_only=True)
class LockedStores:
    """The stores that could be locked, and why the others could not."""

    usable: list[Store] = field(default_factory=list)
    failed: dict[str, StoreError] = field(default_factory=dict)
    checks: dict[str, Callable[[], None]] = field(default_factory=dict)

    def require_held(self) -> dict[str, StoreError]:
        """Return the stores whose lock is not certain any more, and why.

        Raises:
            LockHeld: another run has taken one.
        """
        lost: dict[str, StoreError] = {}
        for name, check in self.checks.items():
            try:
                check()
            except StoreError as error:
                lost[name] = error
        return lost


@contextmanager
def locked(stores: Sequence[Store], lock: LockStore) -> Iterator[LockedStores]:
    """Lock every store for the length of the block; one that fails is left out.

    Raises:
        LockHeld: another run has the source locked in one of them.
        StoreError: none could be locked.
    """
    found = LockedStores()
    with ExitStack() as stack:
        for store in stores:
            try:
                found.checks[store.name] = stack.enter_context(lock(store))
            except StoreError as error:
                logger().error("a store failed", store=store.name, error=error.message)
                found.failed[store.name] = error
            else:
                found.usable.append(store)
        if not found.usable and found.failed:
            raise next(iter(found.failed.values()))
        yield found


@dataclass(frozen=True, kw_only=True)
class BackupResult:
    manifest: Manifest
    stores: tuple[str, ...]
    failed: dict[str, StoreError] = field(default_factory=dict)


def create_backup(
    source: Source,
    stores: Sequence[Store],
    *,
    run_id: str,
    state_dir: Path,
    clock: Callable[[], datetime],
    protection: Protection | None = None,
    notice: Callable[[Manifest], Sequence[str]] = lambda _manifest: (),
    lock: LockStore = no_lock,
    due: datetime | None = None,
    require_turn: Callable[[], None] = lambda: None,
) -> BackupResult:
    """Back up one source into every store and return the recorded set.

    The caller holds this host's lock of the source; the source's own is taken here.
    `lock` takes that of the source in a store: hosts that reach the source by different
    servers meet there. A store that fails does not hold up the others; it is named in
    the result. `notice` returns in what a set differs suddenly from the ones before; it
    is put on record.

    There is one set for each time at which one is `due`: of all runs that make it, the
    manifest of one is stored. `require_turn` raises if it is another run's by now.

    Raises:
        BackupFailed: no set was recorded, and nothing of it is left in a store.
        StoreError: no store took it.
        DatabaseError: the server is unreachable or refuses.
        LockHeld: another host is backing up this source, or has made the set.
    """
    name, journal = source.name, state_dir / "inflight"
    clean_up(journal, source=name, stores=stores)
    started_at = clock()
    with (
        source.opened(run_id=run_id, clock=clock) as opened,
        locked(stores, lock) as held,
    ):
        backup_id = backup_id_of(name, due) if due else new_backup_id(name, started_at)
        writer = SetWriter(
            prefix=set_prefix(name, backup_id),
            attempt=attempt_folder(run_id) if due else "",
            stores=held.usable,
            failed=held.failed,
            protection=protection or Protection(),
        )
        logger().info("backup started", backup_id=backup_id)
        with _writing(journal, writer, stores, name):
            content = opened.write(writer)
            manifest = _begun(writer, backup_id, name, started_at, content)
            changes = {"sudden_changes": tuple(notice(manifest))}
            manifest = manifest.model_copy(update=changes)
            manifest = _complete(manifest, opened, writer, clock)
            recorded = _signed(writer, manifest)
            require_turn()
            opened.require_held()
            writer.leave_out(held.require_held())
            writer.look_again()
            writer.record(recorded)
            # What has the place already is not ours: it may be the set itself, where
            # two names lead to one store.
            failed = writer.failed.items()
            ours = {key for key, error in failed if not isinstance(error, ObjectExists)}
            writer.discard([each for each in stores if each.name in ours])
    return BackupResult(
        manifest=manifest,
        stores=tuple(each.name for each in writer.stores),
        failed=writer.failed,
    )


def _begun(
    writer: SetWriter,
    backup_id: str,
    source: str,
    started_at: datetime,
    content: dict[str, Any],
) -> Manifest:
    """Return the manifest without what is only known once all is stored."""
    version = STREAMS_VERSION if content.get("streams") else ONE_DUMP_VERSION
    return from_document(
        {
            "format_version": DUE_VERSION if writer.attempt else version,
            "backup_id": backup_id,
            "source": source,
            "started_at": started_at,
            "finished_at": started_at,
            "tool_version": __version__,
            "objects": (),
            **content,
        }
    )


def _complete(
    manifest: Manifest,
    opened: OpenSource,
    writer: SetWriter,
    clock: Callable[[], datetime],
) -> Manifest:
    """Store what goes with the contents, and return the manifest as it will be."""
    protection = writer.protection
    changes: dict[str, object] = {}
    if protection.recipients:
        manifest, hidden = private.split(manifest)
        writer.put(private.NAME, private.ROLE, [hidden])
        changes["encryption"] = Encryption(
            format="age", recipients=protection.recipients
        )
    if protection.signer is not None:
        changes["signature"] = SignatureNote(
            format="ssh",
            namespace=signatures.NAMESPACE,
            public_key=protection.signer.public_key,
            object=writer.place + SIGNATURE_NAME,
        )
    guide = opened.guide(
        manifest.backup_id,
        writer.objects,
        encrypted=bool(protection.recipients),
        signed=protection.signer is not None,
    )
    writer.put_open("RESTORE.md", "guide", [guide.encode()])
    changes |= {"objects": tuple(writer.objects), "finished_at": clock()}
    return manifest.model_copy(update=changes)


def _signed(writer: SetWriter, manifest: Manifest) -> bytes:
    """Return the manifest as it is stored last, after its signature."""
    content = manifest.to_json()
    if not is_bounded(content):
        raise BackupFailed(
            f"the manifest of {manifest.backup_id} would be too large to be read",
            hint="Split this source in several, or leave out some of it: see "
            "docs/format.md.",
        )
    if writer.protection.signer is not None:
        writer.put_beside(SIGNATURE_NAME, writer.protection.signer.sign(content))
    return content
