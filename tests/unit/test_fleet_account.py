"""The account of a fleet's campaign: what it must not pass over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opskit.store import LocalStore
from tests.fleet.account import Account, read, settle

FIRST = datetime(2026, 3, 1, 22, 10, tzinfo=UTC)
SECOND = FIRST + timedelta(minutes=10)
ASKED = {"blue": [FIRST, SECOND], "red": [FIRST]}
DRILLED = "evidence/20260301T230000Z-drill-passed-abc123.json"
FAILED = DRILLED.replace("passed", "failed")


@pytest.fixture
def store(store_dir: Path) -> LocalStore:
    """A store with the sets that are asked for, one of each source drilled."""
    made = LocalStore("local", store_dir)
    put(made, "blue", FIRST)
    put(made, "blue", SECOND, DRILLED)
    put(made, "red", FIRST, DRILLED)
    return made


def place(source: str, due: datetime, end: str = "aaaa11") -> str:
    """Return where a set lies."""
    return f"{source}/{due:%Y-%m-%d}/{source}-{due:%Y%m%dT%H%M%SZ}-{end}/"


def put(
    store: LocalStore, source: str, due: datetime, *evidence: str, end: str = "aaaa11"
) -> None:
    """Put a set into the store."""
    prefix = place(source, due, end)
    backup_id = prefix.split("/")[-2]
    content = backup_id.encode()
    dump = {
        "key": f"{prefix}run1/dump.zst",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    manifest = {"backup_id": backup_id, "objects": [dump]}
    store.put(f"{prefix}run1/dump.zst", [content])
    store.put(f"{prefix}manifest.json", [json.dumps(manifest).encode()])
    for each in evidence:
        store.put(f"{prefix}{each}", [b"{}"])


def account(store: LocalStore) -> Account:
    """Settle what was asked for with what the store holds."""
    return settle(ASKED, read(store))


def test_an_account_that_balances(store: LocalStore) -> None:
    """Nothing is said, and what was compared is counted."""
    store.put("_ledger/one.jsonl", [b"{}"])

    assert account(store) == Account(sets=3, sources=2, drilled=2, faults=())


def missing(store: LocalStore) -> str:
    """Lose a manifest; its objects stay."""
    store.delete(f"{place('blue', FIRST)}manifest.json")
    return "missing: blue of 22:10"


def doubled(store: LocalStore) -> str:
    """Make a set twice for one due time."""
    put(store, "blue", FIRST, end="bbbb22")
    return "2 times: blue of 22:10"


def unasked(store: LocalStore) -> str:
    """Make a set that is due at no time."""
    put(store, "red", SECOND)
    return "not asked for: red of 22:20"


def unknown(store: LocalStore) -> str:
    """Make a set of a source that nobody has."""
    put(store, "green", FIRST)
    return "not asked for: green of 22:10"


def undrilled(store: LocalStore) -> str:
    """Lose the evidence of a source's only drill."""
    store.delete(place("red", FIRST) + DRILLED)
    return "not drilled: red"


def failed(store: LocalStore) -> str:
    """Have a drill fail beside one that passed."""
    store.put(place("blue", SECOND) + FAILED, [b"{}"])
    return "drill failed: blue-20260301T222000Z-aaaa11"


def lost(store: LocalStore) -> str:
    """Lose an object."""
    key = place("red", FIRST) + "run1/dump.zst"
    store.delete(key)
    return f"damaged: red-20260301T221000Z-aaaa11: {key} is not there with 27 bytes"


def changed(store: LocalStore) -> str:
    """Change an object, but not its size."""
    key = place("red", FIRST) + "run1/dump.zst"
    store.delete(key)
    store.put(key, [b"R" * 27])
    return f"damaged: red-20260301T221000Z-aaaa11: {key} holds other bytes"


@pytest.mark.parametrize(
    "plant",
    [missing, doubled, unasked, unknown, undrilled, failed, lost, changed],
    ids=lambda each: each.__name__,
)
def test_an_account_names_what_was_planted(
    store: LocalStore, plant: Callable[[LocalStore], str]
) -> None:
    """The one thing, and nothing else."""
    expected = plant(store)

    assert account(store).faults == (expected,)


def test_a_source_without_any_set_is_missing_and_not_drilled(store_dir: Path) -> None:
    """An empty store must not balance."""
    assert account(LocalStore("local", store_dir)).faults == (
        "missing: blue of 22:10",
        "missing: blue of 22:20",
        "missing: red of 22:10",
        "not drilled: blue",
        "not drilled: red",
    )
