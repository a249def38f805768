"""Retention: properties that hold whatever the sets and the policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from opskit.catalog.documents import Proof
from opskit.catalog.retention import Candidate, plan
from opskit.config import RetentionSettings

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
TOLERANCE = timedelta(minutes=10)

_far = st.integers(min_value=-3 * 366 * 86_400, max_value=366 * 86_400)
_near = st.integers(min_value=-5 * 86_400, max_value=3 * 3600)
_times = st.one_of(_far, _near).map(lambda seconds: NOW + timedelta(seconds=seconds))
_known: list[Proof] = ["drilled", "verified", "unproven", "failed"]
_proofs = st.sampled_from(_known)
_locks = st.one_of(
    st.none(), st.none(), _near.map(lambda s: NOW + timedelta(seconds=s))
)


@st.composite
def _candidates(draw: st.DrawFn) -> list[Candidate]:
    drawn = draw(st.lists(st.tuples(_times, _proofs, _locks), max_size=25))
    return [
        Candidate(
            backup_id=f"shop-{number}",
            started_at=time,
            proof=proof,
            locked_until=locked_until,
        )
        for number, (time, proof, locked_until) in enumerate(drawn)
    ]


_counts = st.integers(min_value=0, max_value=5)
_policies = st.builds(
    RetentionSettings,
    keep_last=_counts,
    keep_within=st.integers(min_value=0, max_value=40).map(
        lambda days: timedelta(days=days)
    ),
    keep_daily=_counts,
    keep_weekly=_counts,
    keep_monthly=_counts,
    min_keep=st.integers(min_value=1, max_value=5),
    require_drill=st.booleans(),
).filter(lambda policy: not policy.is_empty)


def _good_present(sets: list[Candidate]) -> list[Candidate]:
    """Return the sets that may be counted, newest first."""
    good = [
        each
        for each in sets
        if each.proof != "failed" and each.started_at <= NOW + TOLERANCE
    ]
    return sorted(good, key=lambda each: (each.started_at, each.backup_id))[::-1]


@given(_candidates(), _policies)
def test_keep_and_delete_partition_the_sets(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """Every set is either kept, with a reason, or deleted."""
    found = plan(sets, policy, now=NOW)

    assert sorted([*found.keep, *found.delete]) == sorted(s.backup_id for s in sets)
    assert all(found.keep.values())
    assert found.refused is None


@given(_candidates(), _policies)
def test_min_keep_good_sets_stay(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """As many good sets stay as `min_keep` says, or all where there are fewer."""
    found = plan(sets, policy, now=NOW)
    good = _good_present(sets)
    kept = [each for each in good if each.backup_id in found.keep]

    assert len(kept) >= min(policy.min_keep, len(good))


@given(_candidates(), _policies)
def test_the_newest_good_set_stays(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """The newest set that did not fail stays under any policy."""
    found = plan(sets, policy, now=NOW)

    assert all(each.backup_id in found.keep for each in _good_present(sets)[:1])


@given(_candidates(), _policies)
def test_the_newest_drilled_set_stays(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """The newest set that a drill has passed stays, however old it is."""
    found = plan(sets, policy, now=NOW)
    drilled = [each for each in _good_present(sets) if each.proof == "drilled"]

    assert all(each.backup_id in found.keep for each in drilled[:1])


@given(_candidates(), _policies)
def test_sets_from_the_future_stay(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """A set with a time in the future stays, whatever its proof."""
    found = plan(sets, policy, now=NOW)
    future = [each for each in sets if each.started_at > NOW + TOLERANCE]

    assert all(each.backup_id in found.keep for each in future)


@given(_candidates(), _policies)
def test_planning_again_deletes_nothing(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """What one plan has kept, the same plan keeps again, for the same reasons."""
    first = plan(sets, policy, now=NOW)
    kept = [each for each in sets if each.backup_id in first.keep]
    second = plan(kept, policy, now=NOW)

    assert second.delete == ()
    assert second.keep == first.keep


@given(_candidates(), _policies, st.randoms(use_true_random=False))
def test_the_order_of_the_sets_does_not_matter(
    sets: list[Candidate],
    policy: RetentionSettings,
    random: Random,
) -> None:
    """The same sets in another order give the same plan, in the same order."""
    shuffled = list(sets)
    random.shuffle(shuffled)
    first, second = plan(sets, policy, now=NOW), plan(shuffled, policy, now=NOW)

    assert first == second
    assert list(first.keep) == list(second.keep)


@given(_candidates(), _policies)
def test_failed_sets_take_no_place_of_good_ones(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """Taking the failed sets away changes nothing for the others."""
    others = [each for each in sets if each.proof != "failed"]
    with_failed = plan(sets, policy, now=NOW).keep
    without = plan(others, policy, now=NOW).keep

    assert {each.backup_id: with_failed.get(each.backup_id) for each in others} == {
        each.backup_id: without.get(each.backup_id) for each in others
    }


@given(_candidates(), _policies, st.sampled_from(["keep_last", "keep_daily"]))
def test_a_larger_policy_keeps_no_less(
    sets: list[Candidate], policy: RetentionSettings, rule: str
) -> None:
    """Raising the count of a rule never makes a set go that stayed before."""
    larger = policy.model_copy(update={rule: getattr(policy, rule) + 1})

    assert set(plan(sets, policy, now=NOW).keep) <= set(
        plan(sets, larger, now=NOW).keep
    )


@given(_candidates(), st.integers(min_value=1, max_value=5))
def test_an_empty_policy_is_refused(sets: list[Candidate], min_keep: int) -> None:
    """A policy whose rules keep nothing deletes nothing and says why."""
    empty = RetentionSettings(
        keep_last=0,
        keep_within=timedelta(0),
        keep_daily=0,
        keep_weekly=0,
        keep_monthly=0,
        min_keep=min_keep,
    )
    found = plan(sets, empty, now=NOW)

    assert found.delete == ()
    assert set(found.keep) == {each.backup_id for each in sets}
    assert found.refused is not None
    assert "[retention]" in found.refused


@given(_candidates(), _policies)
def test_what_is_deleted_is_neither_young_nor_new(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """A deleted set is older than `keep_within` and not among the newest good ones."""
    assume(policy.keep_within or policy.keep_last)
    found = plan(sets, policy, now=NOW)
    newest = {each.backup_id for each in _good_present(sets)[: policy.keep_last]}
    young = {
        each.backup_id
        for each in sets
        if policy.keep_within and NOW - each.started_at < policy.keep_within
    }

    assert not set(found.delete) & (newest | young)


@given(_candidates(), _policies)
def test_locked_sets_stay_until_their_lock_ends(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """A set whose object lock has not ended stays, and one whose has ended has no
    reason of it.
    """
    found = plan(sets, policy, now=NOW)
    told = {
        key
        for key, why in found.keep.items()
        if any(each.startswith("object lock until ") for each in why)
    }

    assert told == {
        each.backup_id
        for each in sets
        if each.locked_until is not None and each.locked_until > NOW
    }


@given(_candidates(), _policies)
def test_where_drills_are_demanded_only_what_is_older_than_a_drilled_set_goes(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """For each set that goes there is a newer good one that has passed a drill."""
    found = plan(sets, policy.model_copy(update={"require_drill": True}), now=NOW)
    drilled = [each for each in _good_present(sets) if each.proof == "drilled"]
    by_id = {each.backup_id: each for each in sets}

    for backup_id in found.delete:
        gone = by_id[backup_id]
        assert any(
            (each.started_at, each.backup_id) > (gone.started_at, backup_id)
            for each in drilled
        )


@given(_candidates(), _policies)
def test_demanding_drills_keeps_more_and_changes_nothing_else(
    sets: list[Candidate], policy: RetentionSettings
) -> None:
    """Every reason that a set has without the demand, it has with it."""
    without = plan(sets, policy.model_copy(update={"require_drill": False}), now=NOW)
    demanded = plan(sets, policy.model_copy(update={"require_drill": True}), now=NOW)
    told = "no newer set has passed a drill"

    assert {
        key: left
        for key, why in demanded.keep.items()
        if (left := [each for each in why if each != told])
    } == without.keep


@given(_candidates(), _policies, st.data())
def test_a_sudden_change_keeps_everything(
    sets: list[Candidate], policy: RetentionSettings, data: st.DataObject
) -> None:
    """While a set holds an unconfirmed change nothing goes, wherever it stands."""
    assume(sets)
    number = data.draw(st.integers(0, len(sets) - 1))
    before = plan(sets, policy, now=NOW)
    sets = [*sets]
    sets[number] = replace(sets[number], unconfirmed_changes=("table t is gone",))
    changed = sets[number]
    found = plan(sets, policy, now=NOW)

    assert found.delete == ()
    assert set(found.keep) == {each.backup_id for each in sets}
    held = {key for key, why in found.keep.items() if why[0].startswith("held: ")}
    assert held == set(before.delete)
    assert found.refused is not None
    assert f"`inv prune --confirm {changed.backup_id}`" in found.refused
