"""Describes copies, and compares their definitions without any server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opskit.checks import Check
from opskit.compare import definitions
from opskit.compare.definitions import CopyToDescribe, Definitions, by_key
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import Contents
from opskit.postgres.servers.programs import Installation
from tests.unit.entries import contents, entry

TABLE = entry(1, "TABLE", "t", definition="CREATE TABLE public.t (id integer);\n")
VIEW = entry(2, "VIEW", "v", definition="CREATE VIEW public.v AS\n SELECT 1;\n")
# The same view in other words, as a server may write it after one trip.
REWRITTEN = replace(VIEW, definition="CREATE VIEW public.v AS\n SELECT (1);\n")
URL = "postgresql://ops:hunter2@db.example/shop"


def described(**changes: Any) -> CopyToDescribe:
    """Return a copy that has the source's own name, on a server with its own roles."""
    fields: dict[str, Any] = {
        "url": URL,
        "installation": Installation(
            bin_dir=Path("/nowhere"), version="16.4", major=16, embedded=False
        ),
        "folder": Path("/nowhere"),
        "timeout_seconds": 1.0,
        "names": ("shop", "shop"),
        "first_roles": ("postgres", "throwaway"),
    }
    return CopyToDescribe(**(fields | changes))


def of_source(*entries: TocEntry, **changes: Any) -> Definitions:
    """Return what is compared of the archive's entries."""
    return by_key(entries, described(**changes), of_source=True)


def of_copy(*entries: TocEntry, **changes: Any) -> Definitions:
    """Return what is compared of the entries that describe the copy."""
    return by_key(entries, described(**changes), of_source=False)


def compare(
    archive: Iterable[TocEntry],
    copy: Iterable[TocEntry],
    reference: Iterable[TocEntry] | None = None,
    *,
    left_out: Iterable[int] = (),
    **changes: Any,
) -> list[Check]:
    """Compare entries; without a reference, asking for one is an error."""

    def ask() -> Contents:
        assert reference is not None, "no reference was needed"
        return contents(*reference)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(definitions, "describe", lambda _copy: contents(*copy))
        return definitions.compare_definitions(
            contents(*archive),
            described(**changes),
            left_out=frozenset(left_out),
            reference=ask,
        )


def failed(checks: Sequence[Check]) -> list[str]:
    """Return the names of the checks that failed; the first one counts the others."""
    assert checks[0].passed == all(each.passed for each in checks)
    return [each.name for each in checks if not each.passed]
