"""Verdict: what the way back to a version has to do, and whether there is one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from opskit.errors import ReleaseRefused
from opskit.release.classes import Kind
from opskit.release.revisions import Revision

Verdict = Literal["image-safe", "downgrade-first", "restore-only"]


def verdict(
    applied: Sequence[str], kinds: Mapping[str, str], known: Collection[Revision]
) -> tuple[Verdict, str]:
    """Return what a rollback has to do, and why, by what was migrated since.

    A migration whose class is not on record counts as destructive; `known` are those
    of which the tool knows.
    """
    of = {each: kinds.get(each, Kind.DESTRUCTIVE) for each in applied}
    heavy = [each for each, kind in of.items() if kind != Kind.ADDITIVE]
    if not heavy:
        return "image-safe", "nothing that the version before needs was changed"
    ways = {each.id for each in known if each.has_way_back}
    lost = [each for each in heavy if of[each] == Kind.DESTRUCTIVE]
    if lost:
        return "restore-only", f"migration {lost[0]} is destructive"
    if all(each in ways for each in applied):
        return "downgrade-first", f"migration {heavy[0]} has a way back"
    return "restore-only", f"migration {heavy[0]} has no way back"


def require_schema(
    version: str, *, declared: str, learnt: str, present: Sequence[str]
) -> None:
    """Refuse a version whose schema the database has not, or has not any more.

    The oldest migration that a version can run on is the one that was declared when it
    was released, or else the newest one that the database had while it ran.

    Raises:
        ReleaseRefused: the database lacks it.
    """
    oldest = declared or learnt
    if not oldest or any(each.startswith(oldest) for each in present):
        return
    how = "declared to need" if declared else "only known to run with"
    raise ReleaseRefused(
        f"refuse: {version} is {how} migration {oldest}, which the database lacks",
        hint="Apply it (`inv migrate --to REV`) with a version of the service that has "
        "it, or release a version that needs less.",
    )
