"""A store in a folder: temporary file, fsync, link, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import TYPE_CHECKING, BinaryIO

from opskit import files
from opskit.errors import ObjectExists, ObjectNotFound, ObjectUnreadable, StoreError
from opskit.log import logger
from opskit.store.base import ObjectInfo, check_key

if TYPE_CHECKING:
    from typing_extensions import Buffer

_Translated = Callable[[str], AbstractContextManager[None]]
# Another run that empties a folder removes it; it can do so a few times at most.
_FOLDER_TRIES = 20
# These are about one file or folder; others are about the store or about this process.
_OF_ONE_OBJECT = {errno.EIO, errno.EACCES, errno.EPERM, errno.ELOOP} | {
    getattr(errno, name) for name in ("EUCLEAN", "EBADMSG") if hasattr(errno, name)
}
_LOOK_INTO = os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
_HINTS = {
    errno.ENOSPC: "Free some space or prune; the earlier backup sets are untouched.",
    errno.EDQUOT: "Free some space or raise the quota; earlier sets are untouched.",
    errno.EACCES: "Let this user read and write the folder.",
    errno.EPERM: "Let this user read and write the folder.",
    errno.EOPNOTSUPP: "Use a file system with hard links for the store: with them no "
    "object replaces another.",
    errno.EROFS: "The file system is mounted read-only; mount it for writing.",
}


class LocalStore:
    """Objects as files below a folder, readable by their owner alone (0600).

    The folder must exist: making it would hide a file system that is not mounted. Only
    regular files are read, and no symbolic link below the folder is followed.
    """

    def __init__(self, name: str, root: str | Path) -> None:
        self.name = name
        self.root = Path(root)
        self._reported: set[str] = set()

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        path = self._path(key)
        with self._translated(key), contextlib.ExitStack() as stack:
            self._require_no_links(key)
            file = self._begun(path, stack)
            for chunk in self._pass_through(chunks):
                file.write(chunk)
        return self.stat(key)

    @staticmethod
    def _begun(path: Path, stack: contextlib.ExitStack) -> BinaryIO:
        """Open a new file in a folder that may be removed, being empty, just now."""
        for left in reversed(range(_FOLDER_TRIES)):
            try:
                files.make_directories(path.parent)
                return stack.enter_context(files.atomic_writer(path, overwrite=False))
            except (FileNotFoundError, FileExistsError):
                if not left:
                    raise
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        check_key(key)
        self._require_root()
        with self._reading(key):
            file = io.BufferedReader(_File(self._opened(key), self._reading, key))
        with file:
            file.seek(start)
            yield file

    def stat(self, key: str) -> ObjectInfo:
        check_key(key)
        self._require_root()
        with self._reading(key), self._parent(key) as (folder, name):
            return self._info(key, self._file_status(key, folder, name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._below(prefix, temporary=False)

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.unfinished`; here these are temporary files."""
        return self._below(prefix, temporary=True)

    def sweep(self, prefix: str, *, before: datetime) -> int:
        """See `Store.sweep`; only what is named as our temporary files are."""
        swept = 0
        for each in [*self.unfinished(prefix)]:
            path = self.root / each.key
            if each.modified_at < before and files.is_temporary(path.name):
                with self._translated(each.key):
                    path.unlink(missing_ok=True)
                self._remove_empty(path.parent)
                swept += 1
        return swept

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translated(key):
            self._require_no_links(key)
            # Another run may remove the emptied folder first.
            with contextlib.suppress(FileNotFoundError):
                path.unlink(missing_ok=True)
                files.fsync_directory(path.parent)
            self._remove_empty(path.parent)

    def discard(self, prefix: str) -> None:
        key = prefix.removesuffix("/")
        folder = self._path(key)
        with self._translated(prefix):
            self._require_no_links(key)
            if folder.is_dir() and not folder.is_symlink():
                self._removed(folder)
                files.fsync_directory(folder.parent)
                self._remove_empty(folder.parent)

    @staticmethod
    def _removed(folder: Path) -> None:
        """Remove a folder into which another run may be putting something."""
        for left in reversed(range(_FOLDER_TRIES)):
            try:
                shutil.rmtree(folder)
            except FileNotFoundError:
                if not folder.exists():
                    return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or not left:
                    raise
            else:
                return

    def _below(self, prefix: str, *, temporary: bool) -> Iterator[ObjectInfo]:
        self._require_root()
        with self._translated(prefix or str(self.root)):
            for each in self._walk(str(self.root), "", prefix):
                if each.key.rpartition("/")[2].startswith(".") == temporary:
                    yield each

    def _walk(self, folder: str, base: str, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what lies in a folder, whose files' keys begin with `base`."""
        try:
            with os.scandir(folder) as listed:
                # A folder sorts among files as its keys do: with the slash behind it.
                entries = sorted(
                    listed,
                    key=lambda each: (
                        each.name + "/" * each.is_dir(follow_symlinks=False)
                    ),
                )
        except FileNotFoundError:
            return  # another run has just removed it
        except OSError as error:
            if prefix.startswith(base):
                raise  # it is what was asked for
            yield from self._unreadable(folder, base, error)
            return
        for entry in entries:
            key = base + entry.name
            if entry.is_dir(follow_symlinks=False):
                below = f"{key}/"
                if below.startswith(prefix) or prefix.startswith(below):
                    yield from self._walk(entry.path, below, prefix)
            elif key.startswith(prefix):
                # A file may go away between the two looks at it.
                with contextlib.suppress(FileNotFoundError):
                    yield self._info(key, entry.stat(follow_symlinks=False))

    def _unreadable(
        self, folder: str, key: str, error: OSError
    ) -> Iterator[ObjectInfo]:
        """Yield a folder that cannot be listed; it may not be one of opskit's."""
        if key not in self._reported:
            self._reported.add(key)
            logger().warning(
                "a folder in a store cannot be read, and is left out",
                store=self.name,
                folder=folder,
                reason=error.strerror,
            )
        with contextlib.suppress(FileNotFoundError):
            yield self._info(key, os.lstat(folder))

    @contextlib.contextmanager
    def _parent(self, key: str) -> Iterator[tuple[int, str]]:
        """Yield a descriptor of the folder that a key lies in, and the file's name."""
        *folders, name = key.split("/")
        folder = os.open(self.root, _LOOK_INTO & ~os.O_NOFOLLOW)
        try:
            for each in folders:
                try:
                    below = os.open(each, _LOOK_INTO, dir_fd=folder)
                except NotADirectoryError:
                    status = os.stat(each, dir_fd=folder, follow_symlinks=False)
                    if S_ISLNK(status.st_mode):
                        raise self._is_link(key, each) from None
                    raise
                os.close(folder)
                folder = below
            yield folder, name
        finally:
            os.close(folder)

    def _require_no_links(self, key: str) -> None:
        """Refuse a place that lies behind a symbolic link; it need not exist yet."""
        with contextlib.suppress(FileNotFoundError), self._parent(key):
            pass

    def _is_link(self, key: str, name: str) -> ObjectUnreadable:
        return ObjectUnreadable(
            f"store {self.name}: {key}: {name} is a symbolic link",
            hint="Links in a store are not followed. Put the folder or file itself "
            "there, or name the place where it is as a store of its own.",
        )

    def _file_status(self, key: str, folder: int, name: str) -> os.stat_result:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if S_ISDIR(status.st_mode):
            raise FileNotFoundError
        if S_ISLNK(status.st_mode):
            raise self._is_link(key, name)
        if not S_ISREG(status.st_mode):
            raise ObjectUnreadable(
                f"store {self.name}: {key} is not a regular file",
                hint="Remove it; opskit reads only regular files.",
            )
        return status

    def _opened(self, key: str) -> int:
        """Return a descriptor of a regular file; nothing else is even opened."""
        with self._parent(key) as (folder, name):
            self._file_status(key, folder, name)
            # One that became a pipe meanwhile must not be waited for.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            return os.open(name, flags, dir_fd=folder)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return  # not empty, or another run is filling it again
            folder = folder.parent

    def _path(self, key: str) -> Path:
        self._require_root()
        return self.root / check_key(key)

    def _require_root(self) -> None:
        if not self.root.is_dir():
            raise StoreError(
                f"store {self.name}: the folder {self.root} does not exist",
                hint="Create it, or mount the file system that it should be on.",
            )

    @staticmethod
    def _info(key: str, status: os.stat_result) -> ObjectInfo:
        return ObjectInfo(
            key=key,
            size_bytes=status.st_size,
            modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
            # Nobody but the kernel sets the time of the last change.
            etag=f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}",
        )

    @staticmethod
    def _pass_through(chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Mark errors of the source, to tell them from the store's own."""
        try:
            yield from chunks
        except OSError as error:
            raise _SourceFailed(error) from error

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Translate errors of one object that is read."""
        try:
            with self._translated(key):
                yield
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _OF_ONE_OBJECT:
                raise ObjectUnreadable(error.message, hint=error.hint) from cause
            raise

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except _SourceFailed as failed:
            raise failed.error from None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectNotFound(
                f"store {self.name}: there is no object {key}",
                hint="`invoke backups` lists the sets that exist.",
            ) from None
        except FileExistsError:
            raise ObjectExists(
                f"store {self.name}: {key} exists already",
                hint="Another run has written it; nothing was changed.",
            ) from None
        except OSError as error:
            raise StoreError(
                f"store {self.name}: {key}: {os.strerror(error.errno or 0)}",
                hint=_HINTS.get(error.errno or 0, "Check the file system's health."),
            ) from error


class _File(io.FileIO):
    """A file whose reading errors are the store's: a bad block is no bug."""

    def __init__(self, descriptor: int, translated: _Translated, key: str) -> None:
        super().__init__(descriptor)
        self._translated, self._key = translated, key

    def readinto(self, buffer: Buffer, /) -> int | None:
        with self._translated(self._key):
            return super().readinto(buffer)


class _SourceFailed(Exception):
    """The chunks, not the store, raised an OSError."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error
