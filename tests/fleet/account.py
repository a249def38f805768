"""Account: the sets that a timetable asks for against those that a store holds.

It reads the store by itself, byte by byte, and asks neither the queue nor the ledger.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from opskit.store import Store

_SET = re.compile(
    r"(?P<source>[^_/][^/]*)/\d{4}-\d\d-\d\d/"
    r"(?P<id>[^/]+-(?P<due>\d{8}T\d{6}Z)-[0-9a-f]{4,})/(?P<rest>.+)"
)
_DRILL = re.compile(r"evidence/\d{8}T\d{6}Z-drill-(?P<outcome>passed|failed)-.*\.json")
_MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Set:
    """A set that a store holds: there is a manifest of it."""

    source: str
    backup_id: str
    due: datetime
    drills: tuple[str, ...] = ()
    damage: str = ""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What came of a timetable: all that is not as it must be, by name."""

    sets: int
    sources: int
    drilled: int
    faults: tuple[str, ...]


def settle(
    asked: Mapping[str, Sequence[datetime]],
    sets: Iterable[Set],
    *,
    drilled: bool = True,
) -> Account:
    """Compare the due times of each source with the sets that there are.

    Args:
        asked: the due times of each source, all of which have passed.
        sets: what the store holds.
        drilled: whether a drill of each source must have passed.
    """
    found = list(sets)
    made = Counter((each.source, each.due) for each in found)
    wanted = {(source, due) for source, times in asked.items() for due in times}
    faults = [f"missing: {_name(each)}" for each in sorted(wanted - made.keys())]
    faults += [
        f"{count} times: {_name(each)}"
        for each, count in sorted(made.items())
        if count > 1
    ]
    faults += [f"not asked for: {_name(each)}" for each in sorted(made.keys() - wanted)]
    faults += [f"damaged: {e.backup_id}: {e.damage}" for e in found if e.damage]
    outcomes: dict[str, set[str]] = defaultdict(set)
    for each in found:
        outcomes[each.source].update(each.drills)
        faults += [f"drill failed: {each.backup_id}"] * ("failed" in each.drills)
    passed = [source for source in asked if "passed" in outcomes[source]]
    if drilled:
        faults += [f"not drilled: {each}" for each in sorted({*asked} - {*passed})]
    return Account(
        sets=len(found), sources=len(asked), drilled=len(passed), faults=tuple(faults)
    )


def read(store: Store, *, whole: bool = True) -> list[Set]:
    """Return the sets of a store; `whole` reads every byte that a manifest names."""
    folders: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for info in store.list(""):
        if found := _SET.fullmatch(info.key):
            place = info.key.removesuffix(found["rest"])
            key = (found["source"], found["due"], place)
            folders[key][found["rest"]] = info.size_bytes
    return [
        Set(
            source=source,
            backup_id=place.split("/")[-2],
            due=datetime.strptime(due, "%Y%m%dT%H%M%S%z").astimezone(UTC),
            drills=tuple(e["outcome"] for e in map(_DRILL.fullmatch, held) if e),
            damage=_damage(store, place, held) if whole else "",
        )
        for (source, due, place), held in folders.items()
        if _MANIFEST in held
    ]


def _damage(store: Store, place: str, held: Mapping[str, int]) -> str:
    """Return what is wrong with the objects of a set, if something is."""
    manifest = json.loads(_content(store, place + _MANIFEST))
    if manifest["backup_id"] != place.split("/")[-2]:
        return f"its manifest is of {manifest['backup_id']}"
    for each in manifest["objects"]:
        key, size = each["key"], each["size_bytes"]
        if held.get(key.removeprefix(place)) != size:
            return f"{key} is not there with {size} bytes"
        if hashlib.sha256(_content(store, key)).hexdigest() != each["sha256"]:
            return f"{key} holds other bytes"
    return ""


def _content(store: Store, key: str) -> bytes:
    with store.open(key) as stream:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))


def _name(each: tuple[str, datetime]) -> str:
    source, due = each
    return f"{source} of {due:%H:%M}"
