"""Evidence: what was proved, and what was not, stored with the outcome last."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit.checks import Check, not_checked
from opskit.drill.report import DrillEvidence, DrillFigures
from opskit.evidence import (
    publish_evidence,
    set_subject,
    store_evidence,
    write_report,
)
from opskit.store import ObjectInfo
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit import builders
from tests.unit.test_protection import BOTH

GOOD = Check(name="table public.t", passed=True)
BAD = Check(name="table public.u", passed=False)
MUTANTS: dict[str, Any] = {
    "seed": "abc", "planted": 1, "killed": 0, "kill_rate": 0.0, "mutants": [],
}  # fmt: skip


def evidence(*checks: Check, **figures: Any) -> DrillEvidence:
    """Return the evidence of a drill that made these checks."""
    manifest = builders.manifest()
    return DrillEvidence(
        kind="drill",
        run_id="abc123",
        subject=set_subject(manifest, "0" * 64),
        started_at=manifest.finished_at,
        finished_at=manifest.finished_at + timedelta(minutes=2),
        checks=checks,
        figures=DrillFigures(**({"phases": {"restore": 1.5}} | figures)),
    )


@pytest.mark.parametrize(
    ("checks", "passed"),
    [
        ([], False),
        ([GOOD], True),
        ([GOOD, GOOD], True),
        ([GOOD, BAD], False),
        ([BAD, GOOD], False),
    ],
)
def test_it_passed_if_all_checks_did_and_there_were_any(
    checks: list[Check], passed: bool
) -> None:
    """Nothing that was left unmade or planted makes up for a check."""
    found = evidence(*checks, not_checked("a", "b"), mutants=MUTANTS)
    document = found.as_json()

    assert found.passed is passed
    assert (document["passed"], document["status"]) == (
        passed,
        "passed" if passed else "failed",
    )
    assert ("passed" in found.name.name(".json")) is passed


def test_what_was_not_checked_stands_in_the_document() -> None:
    """By its name and its reason; so do the mutants, or that there were none."""
    document = evidence(
        GOOD,
        not_checked("extension pg_cron", "the server has none"),
        not_checked("mutants", "none were asked for"),
        mutants=MUTANTS,
    ).as_json()

    assert [each["name"] for each in document["checks"]] == [GOOD.name]
    assert document["not_checked"] == [
        {"name": "extension pg_cron", "reason": "the server has none"},
        {"name": "mutants", "reason": "none were asked for"},
    ]
    assert document["mutants"] == MUTANTS
    assert evidence(GOOD).as_json()["not_checked"] == []
    assert evidence(GOOD).as_json()["mutants"] is None


def test_what_was_compared_is_counted_in_the_document() -> None:
    """Not what the manifest lists: some of that may have been left out."""
    document = evidence(GOOD, tables=2, rows=7).as_json()

    assert (document["tables"], document["rows"]) == (2, 7)


class _RecordingStore(FaultyStore):
    """Holds a set, and tells what is put beside it, in its order."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        builders.store_set([self])
        self.put_in_order: list[tuple[str, bytes]] = []

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        content = b"".join(chunks)
        if hasattr(self, "put_in_order"):
            self.put_in_order.append((key, content))
        return super().put(key, [content])


@pytest.mark.parametrize("report", ["# Report caf\udce9\n", None])
def test_the_outcome_is_stored_last(report: str | None) -> None:
    """In every store, beside the set: the catalog counts only the document's name."""
    stores = [_RecordingStore(), _RecordingStore()]
    found = evidence(GOOD)
    store_evidence(found, report, stores)
    place = found.subject.prefix + found.name.name()
    keys = [key for key, _content in stores[0].put_in_order]

    assert stores[0].put_in_order == stores[1].put_in_order
    assert keys[-1] == place
    assert len(keys) == (1 if report is None else 2)
    assert json.loads(stores[0].put_in_order[-1][1]) == found.as_json()
    if report is not None:
        assert stores[0].put_in_order[0][1] == b"# Report caf\xe9\n"
        assert keys[0] == place.removesuffix(".json") + ".md"


@pytest.mark.parametrize("report", ["# Report\n", None])
def test_nothing_is_left_beside_a_set_that_is_gone(report: str | None) -> None:
    """Another host deleted it meanwhile; what is beside other sets stays."""
    store = MemoryStore()
    other = builders.store_set([store], suffix="ffffff")
    store_evidence(evidence(GOOD), report, [store])

    assert [each.key for each in store.list()] == sorted(
        [other.prefix + "manifest.json", *(each.key for each in other.objects)]
    )


def test_beside_an_encrypted_set_no_words_of_the_server_are_in_the_open(
    tmp_path: Path,
) -> None:
    """Neither of a failed check nor of one not made: both may quote rows of the set."""
    row = "Key (email)=(alice@example.org) is not present"
    name = "FK CONSTRAINT public.orders orders_email_fkey"
    plain = evidence(replace(BAD, detail=row), not_checked(name, row))
    found = replace(plain, subject=replace(plain.subject, recipients=BOTH.recipients))
    store = MemoryStore()
    builders.store_set([store])

    store_evidence(found, row, [store])
    publish_evidence(found, row, tmp_path, signer=None)

    (path,) = tmp_path.glob("*/*.json")
    with store.open(found.subject.prefix + found.name.name()) as file:
        stored = file.read()
    assert stored == path.read_bytes()
    assert b"alice" not in stored
    document = json.loads(stored)
    assert [each["detail"] for each in document["checks"]] == ["see the report"]
    assert document["not_checked"] == [{"name": name, "reason": "see the report"}]
    assert found.as_json()["not_checked"] == [{"name": name, "reason": row}]


def test_the_report_lies_where_a_person_finds_it(tmp_path: Path) -> None:
    """Under the set's name and the run's, with the document beside it."""
    found = evidence(BAD)
    path = write_report(found, "# Report\n", tmp_path / "reports")

    assert path.name == f"{found.subject.name}-drill-abc123.md"
    assert path.read_text() == "# Report\n"
    assert json.loads(path.with_suffix(".json").read_text()) == found.as_json()
