"""What is pure about mutants: where sequences go, the order of kinds, the report."""

from __future__ import annotations

import itertools
import json
import string

import pytest

from opskit.catalog.manifest import SequenceRecord
from opskit.mutants import objects, values
from opskit.mutants.mutant import Attempts, Miss, Mutant, MutantReport, Supply, rotate
from opskit.mutants.planting import _moved, alternating
from opskit.postgres import schema


def mutant(number: int, *, noticed: bool = True) -> Mutant:
    """Return one of several mutants."""
    return Mutant(
        kind="drop a row",
        target=f"public.t, row (0,{number})",
        noticed=noticed,
        noticed_by="table public.t" if noticed else "",
    )


def report(*noticed: bool, refused: tuple[str, ...] = ()) -> MutantReport:
    """Return a report of mutants that were noticed or not."""
    planted = tuple(
        mutant(number, noticed=each) for number, each in enumerate(noticed, 1)
    )
    return MutantReport(seed="abc", planted=planted, refused=refused)


def test_all_noticed_is_a_pass() -> None:
    """The check counts what was planted and what was noticed."""
    found = report(True, True, True)

    check = found.check()

    assert check.passed
    assert check.name == "mutants"
    assert check.expected == check.observed == "3 of 3 noticed"
    assert check.detail == "seed abc"
    assert (found.killed, found.kill_rate) == (3, 1.0)


def test_a_survivor_is_a_failure_and_is_named() -> None:
    """One that was not noticed fails the check, with its kind, place and the seed."""
    found = report(True, False, True, True)

    check = found.check()

    assert not check.passed
    assert (check.expected, check.observed) == ("4 of 4 noticed", "3 of 4 noticed")
    assert check.detail == "seed abc; not noticed: drop a row: public.t, row (0,2)"
    assert [each.target for each in found.survivors] == ["public.t, row (0,2)"]
    assert found.kill_rate == 0.75


def test_nothing_planted_is_a_failure() -> None:
    """A comparison that was shown nothing was not shown to work."""
    found = report(refused=("drop a row", "drop a view"))

    check = found.check()

    assert not check.passed
    assert check.expected == "at least 1 noticed"
    assert check.observed == "0 of 0 noticed"
    assert "nothing could be planted" in check.detail
    assert "refused by the server: drop a row, drop a view" in check.detail
    assert found.kill_rate == 0.0


def test_many_survivors_are_counted_not_listed() -> None:
    """The detail stays short; the document holds every one."""
    found = report(*[False] * 25)

    assert found.check().detail.endswith("row (0,10) and 15 more")
    assert len(found.as_json()["survivors"]) == 25


def test_the_document_is_ready_for_json() -> None:
    """Every mutant is in it, with what noticed it."""
    document = json.loads(json.dumps(report(True, False, refused=("x",)).as_json()))

    assert document == {
        "seed": "abc",
        "planted": 2,
        "killed": 1,
        "kill_rate": 0.5,
        "refused": ["x"],
        "survivors": [
            {"kind": "drop a row", "target": "public.t, row (0,2)", "noticed": False,
             "noticed_by": ""},
        ],
        "mutants": [
            {"kind": "drop a row", "target": "public.t, row (0,1)", "noticed": True,
             "noticed_by": "table public.t"},
            {"kind": "drop a row", "target": "public.t, row (0,2)", "noticed": False,
             "noticed_by": ""},
        ],
    }  # fmt: skip


def test_a_seed_decides_the_order_of_kinds() -> None:
    """The same seed gives the same order, another seed another."""
    kinds: dict[str, Supply] = {f"kind {number}": iter(()) for number in range(20)}

    def order(seed: str) -> list[str]:
        return [name for name, _supply in alternating(kinds, {}, seed)]

    assert order("a") == order("a")
    assert order("a") != order("b")
    assert sorted(order("a")) == sorted(kinds)


def test_kinds_take_turns_until_there_are_enough() -> None:
    """One that plants nothing in thirty attempts is given up; what refused it is said."""

    def planting(kind: str) -> Attempts:
        for number in itertools.count():
            yield Mutant(kind=kind, target=str(number), noticed=True)

    def stubborn() -> Attempts:
        for _ in range(30):
            yield Miss.REFUSED
        yield Mutant(kind="stubborn", target="too late", noticed=True)

    def scarce() -> Attempts:
        yield Miss.NOTHING_THERE
        yield Mutant(kind="scarce", target="1", noticed=True)

    kinds = [("a", planting("a")), ("stubborn", stubborn()), ("scarce", scarce())]
    found = rotate([*kinds, ("b", planting("b"))], number=6, seed="x")

    names = [f"{each.kind} {each.target}" for each in found.planted]
    assert names == ["a 0", "scarce 1", "b 0", "a 1", "b 1", "a 2"]
    assert found.refused == ("stubborn",)


@pytest.mark.parametrize(
    ("last", "is_called", "increment", "least", "greatest", "steps", "moved"),
    [
        (50, True, 1, 1, 99, -1, 49),
        (50, True, 7, 1, 99, -1, 43),
        (-50, True, -7, -99, -1, -1, -43),
        (1, True, 1, 1, 99, -1, 1),
        (1, False, 1, 1, 99, -1, None),
        (50, True, 1, 1, 9999, 1000, 1050),
        (50, True, 1, 1, 99, 1000, 51),
        (50, True, -1, 1, 9999, 1000, 49),
        (99, True, 1, 1, 99, 1000, None),
    ],
)
def test_a_sequence_goes_where_it_was_not(
    last: int,
    is_called: bool,
    increment: int,
    least: int,
    greatest: int,
    steps: int,
    moved: int | None,
) -> None:
    """Within its bounds, in its own direction, and never to the state it was in."""
    record = SequenceRecord(
        schema="public", name="s", last_value=last, is_called=is_called
    )

    assert _moved(record, increment, least, greatest, steps) == moved


def test_expressions_of_values_ask_for_nothing_unknown() -> None:
    """Each expression can be filled in with what the statements give it."""
    tables = (
        values._BY_CATEGORY,
        values._BY_TYPE,
    )
    texts = [text for table in tables for texts in table.values() for text in texts]
    texts += values._FIRST_BY_CATEGORY.values()
    texts += values._FIRST_BY_TYPE.values()
    names = {name for text in texts for _, name, _, _ in string.Formatter().parse(text)}

    assert names <= {None, "c", "n", "t", "y"}


def test_every_kind_of_object_can_be_dropped_or_altered() -> None:
    """A kind that the comparison knows and no mutant is made for is not shown."""
    covered = {each.part for each in objects.DAMAGES} | {"large object"}
    covered |= {kind for kind in schema.KINDS if objects.dropping(kind)}

    assert set(schema.KINDS) <= covered
    assert {each.part for each in objects.DAMAGES} <= set(schema.KINDS)
