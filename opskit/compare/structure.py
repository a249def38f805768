"""Compares the structure of a restored copy: every object by kind, name and state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import replace

from opskit.catalog.manifest import DatabaseManifest
from opskit.checks import Check, compare
from opskit.compare.contents import RestoredCopy
from opskit.postgres import schema, survey
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import server_major
from opskit.postgres.inventory import Inventory
from opskit.postgres.schema import SchemaObject
from opskit.preflight.concessions import Concessions

_NAMES_SHOWN = 20
# What ALL means of a table in every major, and what came to it since which one.
_ALL_ON_TABLES = frozenset(
    ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
)
_PRIVILEGES_ADDED = {17: "MAINTAIN"}


def compare_structure(
    copy: RestoredCopy,
    concessions: Concessions,
    entries: Sequence[TocEntry],
    *,
    by_name: bool = True,
) -> list[Check]:
    """Compare every object by kind, validity, extensions and the database itself.

    `entries` are those of the archive; without `by_name` the list of objects is not.
    """
    with copy.connect() as connection:
        observed = schema.take(connection)
        invalid = schema.invalid_indexes(connection)
        unvalidated = schema.unvalidated_constraints(connection)
        populated = schema.populated_views(connection)
        found = survey.take(connection)
        added = _added(copy.manifest.server_major, server_major(connection))
    observed = _without_added(observed, copy.schema, added)
    checks = []
    if concessions.names_everything and by_name:
        made = _but_for(concessions, copy.schema, observed)
        checks += [check_kind(kind, made, observed) for kind in schema.KINDS]
    checks.append(_populated(entries, concessions, populated))
    known = {
        each.name
        for each in copy.schema
        if "INVALID" in each.state or concessions.excuse(each)
    }
    checks.append(_none_but("every index valid", invalid, known))
    known = {each.name for each in copy.schema if "NOT VALIDATED" in each.state}
    checks.append(_none_but("every constraint validated", unvalidated, known))
    expected = copy.manifest.inventory
    left_out = {
        entry.name
        for entry in entries
        if entry.kind == "EXTENSION" and entry.dump_id in concessions.left_out
    }
    checks.append(
        compare(
            "extensions",
            _extensions(expected, concessions, left_out),
            _extensions(found, concessions, left_out),
            "name and version",
        )
    )
    checks.append(compare("database encoding", expected.encoding, found.encoding))
    if not concessions.without_locale:
        checks.append(
            compare("database locale", str(expected.locale), str(found.locale))
        )
    return checks


def _added(source_major: int, major: int) -> set[str]:
    """Return the privileges that came to tables after the source's major."""
    return {
        privilege
        for since, privilege in _PRIVILEGES_ADDED.items()
        if source_major < since <= major
    }


def _without_added(
    observed: Iterable[SchemaObject],
    expected: Iterable[SchemaObject],
    added: Collection[str],
) -> list[SchemaObject]:
    """Leave out of what ALL means here what it did not mean in the source."""
    granted = {each.name: each.state for each in expected if each.kind == "grant"}

    def as_in_source(each: SchemaObject) -> SchemaObject:
        before = {name.rstrip("*") for name in granted.get(each.name, "").split()}
        if each.kind != "grant" or not before >= _ALL_ON_TABLES:
            return each
        state = [name for name in each.state.split() if name.rstrip("*") not in added]
        return replace(each, state=" ".join(state))

    return [as_in_source(each) for each in observed]


def _but_for(
    concessions: Concessions,
    expected: Iterable[SchemaObject],
    observed: Sequence[SchemaObject],
) -> list[SchemaObject]:
    """Return what is expected; where something may be missing, what there is of it."""
    found = {(each.kind, each.name): each for each in observed}
    return [
        there
        for each in expected
        if (
            there := found.get((each.kind, each.name))
            if concessions.excuse(each)
            else each
        )
    ]


def _populated(
    entries: Iterable[TocEntry], concessions: Concessions, observed: Sequence[str]
) -> Check:
    """Compare which materialized views are filled.

    pg_dump leaves empty what was filled from a view that is empty now, so that the
    archive tells, not the source.
    """
    expected = {
        (f"{entry.schema}.{entry.name}",)
        for entry in entries
        if entry.kind == "MATERIALIZED VIEW DATA"
        and entry.dump_id not in concessions.not_made
    }
    filled = {(each,) for each in observed}
    return _same_names("materialized views filled", expected, filled)


def compare_with_archive(
    manifest: DatabaseManifest, entries: Iterable[TocEntry]
) -> list[Check]:
    """Compare which tables and sequences the manifest lists with those of the archive.

    What the manifest does not list, nothing else would compare.
    """
    held: dict[str, set[tuple[str, str]]] = {"TABLE DATA": set(), "SEQUENCE SET": set()}
    for each in entries:
        if each.kind in held:
            held[each.kind].add((each.schema, each.name))
    tables = {(each.schema_name, each.name) for each in manifest.tables}
    sequences = {(each.schema_name, each.name) for each in manifest.sequences}
    return [
        _same_names("tables of the archive", tables, held["TABLE DATA"]),
        _same_names("sequences of the archive", sequences, held["SEQUENCE SET"]),
    ]


def _same_names(
    name: str, expected: Set[tuple[str, ...]], observed: Set[tuple[str, ...]]
) -> Check:
    return Check(
        name=name,
        passed=expected == observed,
        expected=str(len(expected)),
        observed=str(len(observed)),
        detail=_listed("", sorted(map(".".join, expected ^ observed))),
    )


def check_kind(
    kind: str,
    expected: Iterable[SchemaObject],
    observed: Iterable[SchemaObject],
    *,
    names_shown: int = _NAMES_SHOWN,
) -> Check:
    before = {each.name: each.state for each in expected if each.kind == kind}
    after = {each.name: each.state for each in observed if each.kind == kind}
    changed = [
        f"{name} ({before[name]} became {after[name]})"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    ]
    differences = [
        _listed("missing", sorted(before.keys() - after.keys()), names_shown),
        _listed("not in the source", sorted(after.keys() - before.keys()), names_shown),
        _listed("changed", changed, names_shown),
    ]
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    plural = f"{kind}es" if kind.endswith("x") else plural
    return Check(
        name=plural,
        passed=before == after,
        expected=str(len(before)),
        observed=str(len(after)),
        detail="; ".join(each for each in differences if each),
    )


def _none_but(name: str, found: Iterable[str], known: set[str]) -> Check:
    """Check that nothing is found that the source did not have as well."""
    unexpected = sorted(set(found) - known)
    return Check(
        name=name,
        passed=not unexpected,
        expected="0 exceptions",
        observed=f"{len(unexpected)} exceptions",
        detail=_listed("", unexpected),
    )


def _listed(label: str, names: Sequence[str], shown: int = _NAMES_SHOWN) -> str:
    if not names:
        return ""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{label} {', '.join(names[:shown])}{more}".strip()


def _extensions(
    found: Inventory, concessions: Concessions, left_out: Collection[str]
) -> str:
    other = concessions.subjects("extension-version")
    return ", ".join(
        each.name if each.name in other else f"{each.name} {each.version}"
        for each in found.extensions
        if each.name not in left_out
    )
