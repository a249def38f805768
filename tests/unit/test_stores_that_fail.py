"""A store fails while sets are verified or copied: what is known is kept and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from opskit.catalog import catalog
from opskit.catalog.documents import EVIDENCE_FOLDER
from opskit.errors import ObjectNotFound, StoreError, StoreUnavailable
from opskit.operations.copy import CopyRequest, copy
from opskit.operations.run import Run
from opskit.operations.verify import VerifyRequest, verify
from opskit.store import ObjectInfo, Store
from tests.memory_store import MemoryStore
from tests.unit import builders
from tests.unit.conftest import LoadConfig

RunOn = Callable[..., Run]


@pytest.fixture
def run_on(load_config: LoadConfig) -> RunOn:
    """Return a function that returns a run which works with these stores."""

    def run_on(*stores: Store) -> Run:
        url = 'url = "postgresql://shop@127.0.0.1/shop"'
        run = Run(load_config(f"[databases.shop]\n{url}\n"))
        vars(run)["stores"] = list(stores)
        return run

    return run_on


class _Failing(MemoryStore):
    """Does not give out, or does not take, objects whose key has a certain end."""

    error: StoreError = StoreUnavailable("it answers 503")
    unread: str = "\0"
    refused: str = "\0"

    def open(self, key: str, start: int = 0) -> Any:
        if key.endswith(self.unread):
            raise self.error
        return super().open(key, start)

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        if key.endswith(self.refused):
            raise self.error
        return super().put(key, chunks)


def _documents(store: Store) -> list[dict[str, Any]]:
    """Return the evidence in a store that has content."""
    found = []
    for each in store.list():
        if EVIDENCE_FOLDER in each.key:
            with store.open(each.key) as file:
                found.append(json.loads(file.read()))
    return [each for each in found if each]


def _damage(store: MemoryStore, key: str) -> None:
    with store.open(key) as file:
        content = bytearray(file.read())
    content[0] ^= 1
    store.delete(key)
    store.put(key, [bytes(content)])


@pytest.mark.parametrize("damaged", [True, False])
def test_damage_is_on_record_though_the_rest_was_not_given_out(
    damaged: bool, run_on: RunOn
) -> None:
    """The proof of the set is lost by what was found, not by what could not be read."""
    store = _Failing("near")
    made = builders.store_set([store])
    builders.store_evidence(store, made, kind="drill", passed=True, days_later=0)
    first, last = made.objects[0].key, made.objects[-1].key
    if damaged:
        _damage(store, first)
    store.unread = last

    outcome = verify(run_on(store), VerifyRequest())

    (found,) = catalog.read([store]).sets
    assert outcome.exit_code == (20 if damaged else 10)
    assert outcome.result is not None
    assert [each.key for each in outcome.result.bad] == [first] * damaged
    assert outcome.result.not_read == ("it answers 503",)
    assert found.proof == ("failed" if damaged else "drilled")
    documents = _documents(store)
    assert len(documents) == damaged
    for document in documents:
        assert [each["name"] for each in document["checks"]] == [first]
        rest = {each["name"]: each["reason"] for each in document["not_checked"]}
        assert list(rest) == [each.key for each in made.objects[1:]]
        assert rest[last] == "not all was read: it answers 503"


def test_a_full_target_is_not_taken_for_damage(run_on: RunOn) -> None:
    """The error is the store's, with its hint; the other sets are copied."""
    source, target = MemoryStore("near"), _Failing("far")
    made = builders.store_set([source])
    other = builders.store_set([source], suffix="ffffff")
    target.error = StoreError("store far: no space left", hint="Free some space.")
    target.refused = made.objects[-1].key

    run = run_on(source, target)
    outcome = copy(run, CopyRequest(from_store="near", to_store="far"))

    document = outcome.as_json()
    assert (outcome.exit_code, document["status"]) == (10, "failed")
    assert (document["error"], document["hint"]) == (
        "store far: no space left",
        "Free some space.",
    )
    assert document["bad"] == []
    assert [each["backup_id"] for each in document["sets"]] == [other.backup_id]
    assert [e.manifest for e in catalog.read([target]).sets] == [other]
    (entry,) = run.ledger.entries()
    assert (entry.details["copied"], entry.details["failed"]) == (1, 1)


def test_damage_comes_before_a_full_target(run_on: RunOn) -> None:
    """Both count as failed; the exit code is that of the damage."""
    source, target = MemoryStore("near"), _Failing("far")
    made = builders.store_set([source])
    other = builders.store_set([source], suffix="ffffff")
    _damage(source, other.objects[0].key)
    target.refused = made.objects[-1].key

    run = run_on(source, target)
    outcome = copy(run, CopyRequest(from_store="near", to_store="far"))

    assert outcome.exit_code == 20
    assert [each["key"] for each in outcome.as_json()["bad"]] == [other.prefix]
    (entry,) = run.ledger.entries()
    assert (entry.details["copied"], entry.details["failed"]) == (0, 2)


def test_what_is_missing_beside_a_set_counts_as_damage(run_on: RunOn) -> None:
    """The source lists the evidence, and does not hold it."""
    source, target = _Failing("near"), MemoryStore("far")
    made = builders.store_set([source])
    builders.store_evidence(source, made, kind="drill", passed=True)
    source.error = ObjectNotFound("store near: there is no such object")
    source.unread = "-drill-passed-abc123.json"

    run = run_on(source, target)
    outcome = copy(run, CopyRequest(from_store="near", to_store="far"))

    assert outcome.exit_code == 20
    assert [each["key"] for each in outcome.as_json()["bad"]] == [made.prefix]
