"""FileRecord: what a backup set says of one entry of a folder."""

from __future__ import annotations

import os
import stat
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator

# Integers alone, within what a file system or a server can hold.
Integer = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
Amount = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
FileType = Literal["file", "directory", "symlink", "hardlink", "fifo"]

ROOT = "."
_LISTED_MAX = 5
_TYPES: dict[int, FileType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
}


class FileRecord(BaseModel):
    """One entry as it was read. The folder itself is the entry `.`.

    Paths are relative, with slashes; bytes that are not UTF-8 are lone surrogates, as
    `surrogateescape` writes them. `target` is the text of a symbolic link, or the
    recorded path that a hard link shares its file with. `sha256` and `size_bytes` are
    of files alone; `sparse` says that the file had holes, which its digest counts as
    zeros. Hard links between other things than files are not recorded.
    """

    # A later version of the same format may add keys.
    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    type: FileType
    mode: int = Field(strict=True, ge=0, le=0o7777)
    uid: Amount
    gid: Amount
    owner: str = ""
    group: str = ""
    mtime_ns: Integer
    size_bytes: Amount = 0
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    target: str = ""
    sparse: StrictBool = False

    @field_validator("path")
    @classmethod
    def _beneath(cls, path: str) -> str:
        if not is_beneath(path):
            raise ValueError("must be a plain path inside the folder")
        return path


def is_beneath(path: str) -> bool:
    """Return whether a path leads to the root or below it, by plain names alone."""
    if path == ROOT:
        return True
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def file_type(mode: int) -> FileType | None:
    """Return the type for a mode of `stat`; None for sockets and devices."""
    return _TYPES.get(stat.S_IFMT(mode))


def describe(
    path: str,
    status: os.stat_result,
    *,
    sha256: str = "",
    target: str = "",
    is_hardlink: bool = False,
    sparse: bool = False,
    owner: str = "",
    group: str = "",
) -> FileRecord:
    """Return the record of an entry that is no socket and no device."""
    kind = "hardlink" if is_hardlink else file_type(status.st_mode)
    assert kind is not None, path
    # Its values come from the system, and there may be a million of them.
    return FileRecord.model_construct(
        path=path,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        owner=owner,
        group=group,
        mtime_ns=status.st_mtime_ns,
        size_bytes=status.st_size if kind == "file" else 0,
        sha256=sha256,
        target=target,
        sparse=sparse,
    )


def shown(path: str) -> str:
    """Return a path as a message can hold it, on one line."""
    return path if path.isprintable() else ascii(path)


def listed(paths: list[str]) -> str:
    """Return the first few paths for a message, and how many more there are."""
    more = len(paths) - _LISTED_MAX
    text = ", ".join(
        "the folder itself" if each == ROOT else shown(each)
        for each in paths[:_LISTED_MAX]
    )
    return f"{text} and {more} more" if more > 0 else text
