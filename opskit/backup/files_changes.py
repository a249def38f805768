"""Looks again at a tree that was read: what is different now."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from opskit.catalog.file_record import file_type
from opskit.folders.reading import State, state
from opskit.folders.tree import walk


def changes(
    root: int, seen: Mapping[str, State], leave_out: Callable[[str], bool]
) -> list[str]:
    """Return the paths that were added, removed or changed since they were read.

    A directory is named only where nothing in it is: it changes with its entries.

    Raises:
        OSError: as the system says, with the path in the tree.
    """
    found: set[str] = set()
    directories: set[str] = set()
    left = set(seen)
    for entry in walk(root, leave_out=leave_out):
        left.discard(entry.path)
        if seen.get(entry.path) == state(entry.stat):
            continue
        is_known = entry.path in seen
        is_directory = file_type(entry.stat.st_mode) == "directory"
        (directories if is_known and is_directory else found).add(entry.path)
    found |= left
    explained = {path.rpartition("/")[0] or "." for path in found}
    return sorted(found | (directories - explained))
