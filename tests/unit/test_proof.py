"""Proof: what the evidence beside a set amounts to."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.catalog.documents import (
    EvidenceKind,
    EvidenceName,
    Proof,
    combined,
    evidence_name,
    parse_evidence,
    proof_of,
)

DRILL_OK, DRILL_BAD = ("drill", True), ("drill", False)
READ_OK, READ_BAD = ("verify", True), ("verify", False)
_kinds: list[EvidenceKind] = ["drill", "verify"]
_times = st.datetimes(datetime(2000, 1, 1), datetime(2999, 1, 1))  # noqa: DTZ001
_outcomes = st.tuples(st.sampled_from(_kinds), st.booleans())


def _evidence(outcomes: list[tuple[EvidenceKind, bool]]) -> list[EvidenceName]:
    """Return evidence in the order of time, a second between each."""
    start = datetime(2026, 3, 10, 3, tzinfo=UTC)
    return [
        evidence_name(
            kind=kind,
            passed=passed,
            finished_at=start + timedelta(seconds=number),
            run_id="abc",
        )
        for number, (kind, passed) in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("outcomes", "proof"),
    [
        ([], "unproven"),
        ([READ_OK], "verified"),
        ([READ_BAD], "failed"),
        ([DRILL_OK], "drilled"),
        ([DRILL_BAD], "failed"),
        ([DRILL_OK, READ_OK], "drilled"),
        ([READ_OK, DRILL_OK], "drilled"),
        ([DRILL_OK, READ_BAD], "failed"),
        ([READ_BAD, DRILL_OK], "drilled"),
        ([READ_BAD, READ_OK], "verified"),
        ([READ_OK, READ_BAD], "failed"),
        ([DRILL_BAD, READ_OK], "failed"),
        ([DRILL_BAD, DRILL_OK], "drilled"),
        ([DRILL_OK, DRILL_BAD], "failed"),
        ([DRILL_OK, DRILL_BAD, READ_OK], "failed"),
        ([DRILL_OK, READ_BAD, READ_OK], "drilled"),
        ([READ_BAD, DRILL_BAD, DRILL_OK], "drilled"),
        ([DRILL_BAD, READ_BAD, DRILL_OK, READ_OK], "drilled"),
    ],
)
def test_the_newest_word_of_each_kind_counts(
    outcomes: list[tuple[EvidenceKind, bool]], proof: Proof
) -> None:
    """A failed drill is healed by a drill alone, a failed reading by either."""
    for shuffled in itertools.permutations(_evidence(outcomes)):
        assert proof_of(shuffled) == proof


@given(st.lists(_outcomes, max_size=8))
def test_a_failed_drill_is_only_healed_by_a_drill(
    outcomes: list[tuple[EvidenceKind, bool]],
) -> None:
    """As long as the newest drill has failed, the set is failed, and never drilled."""
    proof = proof_of(_evidence(outcomes))
    drills = [passed for kind, passed in outcomes if kind == "drill"]

    assert drills[-1:] != [False] or proof == "failed"
    assert proof != "drilled" or drills[-1:] == [True]


@given(st.lists(_outcomes, max_size=8), st.sampled_from(_kinds))
def test_what_fails_last_fails_the_set(
    outcomes: list[tuple[EvidenceKind, bool]], kind: EvidenceKind
) -> None:
    """Whatever was proved before, the newest failure counts."""
    assert proof_of(_evidence([*outcomes, (kind, False)])) == "failed"


@given(_outcomes, _times, st.from_regex(r"[0-9a-f]+", fullmatch=True))
def test_the_outcome_stands_in_the_name(
    outcome: tuple[EvidenceKind, bool], finished_at: datetime, run_id: str
) -> None:
    """A name says kind, outcome, time and run, and is read back to the same."""
    kind, passed = outcome
    made = evidence_name(
        kind=kind,
        passed=passed,
        finished_at=finished_at.replace(tzinfo=UTC),
        run_id=run_id,
    )

    assert parse_evidence(made.name()) == made


@pytest.mark.parametrize("kind", _kinds)
def test_of_two_in_one_second_the_bad_news_counts(kind: EvidenceKind) -> None:
    """Without knowing which came last, the set is not to be relied on."""
    time = datetime(2026, 3, 10, 3, tzinfo=UTC)
    both = [
        evidence_name(kind=kind, passed=passed, finished_at=time, run_id=run_id)
        for passed, run_id in ((True, "b"), (False, "a"))
    ]

    assert proof_of(both) == proof_of(both[::-1]) == "failed"


@pytest.mark.parametrize(
    ("proofs", "proof"),
    [
        ([], "unproven"),
        (["unproven", "unproven"], "unproven"),
        (["unproven", "verified"], "verified"),
        (["drilled", "verified", "unproven"], "drilled"),
        (["drilled", "failed"], "failed"),
        (["failed", "unproven"], "failed"),
    ],
)
def test_a_damaged_copy_fails_the_set(proofs: list[Proof], proof: Proof) -> None:
    """The strongest proof of any copy counts, unless one of them has failed."""
    for shuffled in itertools.permutations(proofs):
        assert combined(shuffled) == proof


def test_names_are_in_utc() -> None:
    """Evidence from two time zones stands in the order in which it was made."""
    tokyo = timezone(timedelta(hours=9))
    made = evidence_name(
        kind="drill",
        passed=False,
        finished_at=datetime(2026, 3, 1, 8, 30, tzinfo=tokyo),
        run_id="abc",
    )

    assert made.name() == "evidence/20260228T233000Z-drill-failed-abc.json"
    assert made.name(".md") == "evidence/20260228T233000Z-drill-failed-abc.md"


@pytest.mark.parametrize(
    "name",
    [
        "20260310T030000Z-drill-passed-abc.json",
        "evidence/20260310T030000Z-drill-passed-abc.md",
        "evidence/20260310T030000Z-drill-passed-abc.json.tmp",
        "evidence/20260310T030000Z-drill-perhaps-abc.json",
        "evidence/20260310T030000Z-smoke-passed-abc.json",
        "evidence/below/20260310T030000Z-drill-passed-abc.json",
        "evidence/20260310T030000Z-drill-passed-.json",
        "evidence/20261310T030000Z-drill-passed-abc.json",
        "evidence/",
        "manifest.json",
    ],
)
def test_other_names_are_no_evidence(name: str) -> None:
    """Reports, leftovers and foreign names prove nothing."""
    assert parse_evidence(name) is None
