"""Compares every definition of a restored copy with the archive's, to the letter.

The archive's contents hold each object's statement, owner, tablespace and storage as
pg_dump wrote them from the source. pg_dump describes the copy in the same way, so what
it knows of is compared, whatever kind of object that is.

PostgreSQL writes some expressions in other words after one trip through a dump. Where a
definition differs, the archive's own statements are therefore run in an empty database
of the same server, not by pg_restore but here: a difference that this reference shows
to the letter as well is the server's way of writing; every other one is reported.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from opskit.checks import Check
from opskit.errors import ArchiveError, DatabaseError, ServerFault
from opskit.log import mask
from opskit.postgres import client
from opskit.postgres.archive import toc
from opskit.postgres.archive.entry import ABOUT_OBJECTS, CONTENT_KINDS, TocEntry
from opskit.postgres.archive.toc import Contents
from opskit.postgres.connect import Connection, statements, statements_by_role
from opskit.postgres.database import run_bytes
from opskit.postgres.parameters import client_connection, client_environment
from opskit.postgres.scratch import without_mark
from opskit.postgres.servers.programs import Installation

# What is compared elsewhere, or only tells how to read the others.
_NOT_DEFINITIONS = CONTENT_KINDS | {"ENCODING", "STDSTRINGS", "SEARCHPATH"}
_LARGE_OBJECT = "LARGE OBJECT"

# Many statements, which the server keeps in no order.
_IN_ANY_ORDER = ("ACL", "DEFAULT ACL", "DATABASE PROPERTIES")

_NO_COMMENT = "COMMENT ON DATABASE * IS '';\n"
_DATABASE_NAME = re.compile(r'\bDATABASE (?:"(?:[^"]|"")*"|[^\s;]+)')

Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class CopyToDescribe:
    """Where the copy is and how it may rightly differ.

    `names` are the source's database and the copy's; `first_roles` those of the
    superusers that initdb made on either server, who own what is built in.
    """

    url: str = field(repr=False)
    installation: Installation
    folder: Path
    timeout_seconds: float
    names: tuple[str, str]
    first_roles: tuple[str, str]
    with_owners: bool = True
    with_tablespaces: bool = True
    without_settings: bool = False


@dataclass(frozen=True, order=True)
class Definition:
    """What is compared of one entry; `text` may be settled, the rest never."""

    text: str
    owner: str
    tablespace: str
    access_method: str

    @property
    def belongings(self) -> tuple[str, str, str]:
        return self.owner, self.tablespace, self.access_method


Definitions = dict[Key, list[Definition]]


def describe(copy: CopyToDescribe) -> Contents:
    """Return what pg_dump says of a database's definitions.

    Raises:
        DatabaseError: it failed.
    """
    path = copy.folder / "definitions.pgdump"
    arguments = ["--format=custom", "--compress=0", "--schema-only", "--no-password"]
    arguments += [f"--dbname={client_connection(copy.url)}", f"--file={path}"]
    client.run(
        [copy.installation.program("pg_dump"), *arguments],
        client_environment(copy.url),
        doing="pg_dump of the copy",
        timeout_seconds=copy.timeout_seconds,
    )
    try:
        return toc.read(path)
    except ArchiveError as error:
        # Of this machine's pg_dump, which says nothing of the set.
        raise DatabaseError(
            "what pg_dump says of the copy is not understood",
            said=error.message,
            hint=error.hint,
        ) from error
    finally:
        path.unlink()


def by_key(
    entries: Iterable[TocEntry],
    copy: CopyToDescribe,
    *,
    of_source: bool,
    archive: Sequence[TocEntry] = (),
) -> Definitions:
    found: Definitions = defaultdict(list)
    entries = list(entries)
    made = {entry.dump_id for entry in archive or entries}
    for entry in entries:
        if _is_compared(entry, copy):
            key, definition = _normal(entry, copy, of_source=of_source)
            if entry.is_about_others(made):
                definition = replace(definition, owner="")
            # A copy beside others may have a comment for its mark's sake alone.
            if definition.text != _NO_COMMENT:
                found[key].append(definition)
    for each in found.values():
        each.sort()
    return dict(found)


def _without_name(text: str) -> str:
    """Return statements about the database itself without its name."""
    return "".join(
        # The first mention is the object; later ones are somebody's words.
        _DATABASE_NAME.sub("DATABASE *", statement, count=1) + ";\n"
        for statement in statements(text)
    )


def _is_compared(entry: TocEntry, copy: CopyToDescribe) -> bool:
    if entry.kind in _NOT_DEFINITIONS or (
        entry.kind in ABOUT_OBJECTS and entry.name.startswith(_LARGE_OBJECT)
    ):
        return False
    if entry.kind in ("ACL", "DEFAULT ACL") and not copy.with_owners:
        return False
    return not (entry.kind == "DATABASE PROPERTIES" and copy.without_settings)


def _normal(
    entry: TocEntry, copy: CopyToDescribe, *, of_source: bool
) -> tuple[Key, Definition]:
    source_name, copy_name = copy.names
    source_first, copy_first = copy.first_roles
    name, text, owner = entry.name, entry.definition, entry.owner
    # Only what is built in is the first role's without anybody's doing.
    if not of_source and entry.kind in ABOUT_OBJECTS and owner == copy_first:
        owner = source_first
    if source_name != copy_name and (
        entry.kind.startswith("DATABASE")
        or (entry.kind in ABOUT_OBJECTS and name.startswith("DATABASE "))
    ):
        name = "*" if entry.kind.startswith("DATABASE") else "DATABASE *"
        text = _without_name(text if of_source else without_mark(text))
    if entry.kind == "DATABASE":
        text = ""  # encoding and locale have checks of their own
    elif entry.kind in _IN_ANY_ORDER:
        text = ";\n".join(sorted(statements_by_role(text)))
    return (entry.kind, entry.schema, name), Definition(
        text=text,
        owner=owner if copy.with_owners else "",
        tablespace=entry.tablespace if copy.with_tablespaces else "",
        access_method=entry.access_method,
    )


# Data, and what belongs to the database or to the server rather than into it.
SKIPPED = CONTENT_KINDS | {
    "DATABASE",
    "SUBSCRIPTION",
    "DATABASE PROPERTIES",
    "ACL",
    "DEFAULT ACL",
    "COMMENT",
    "SECURITY LABEL",
}
# The first of these says in which encoding all the others are.
_FIRST = ("ENCODING", "STDSTRINGS", "SEARCHPATH", "SCHEMA")
# They might act on what comes after them.
_LAST = ("EVENT TRIGGER",)
_SETTINGS = "SET check_function_bodies = false; SET xmloption = content;"


def build(
    connection: Connection, archive: Contents, kept: Sequence[TocEntry], ahead: str
) -> None:
    """Run the statements of all definitions kept in the connection's empty database.

    They are in the order in which pg_dump wrote them, which is that of dependence; the
    script `ahead` comes between the schemas and all others, as it does in the copy.

    Raises:
        DatabaseError: by the connection's own context, if one is refused.
    """
    first = [each for each in kept if each.kind in _FIRST]
    last = [each for each in kept if each.kind in _LAST]
    elsewhere = SKIPPED | {*_FIRST, *_LAST}
    others = [each for each in kept if each.kind not in elsewhere]
    grants = grants_of_others_in(archive)
    for text in (
        _SETTINGS,
        *(each.definition for each in first),
        ahead,
        *(each.definition for each in (*others, *last, *grants)),
    ):
        # In the encoding that the archive's first entry sets.
        run_bytes(connection, text.encode(archive.codec, "surrogateescape"))


def grants_of_others_in(archive: Contents) -> list[TocEntry]:
    """Return the grants on what is built in or an extension's.

    pg_dump writes them as the difference to what an extension's script granted, and
    what default privileges added to that when it was created.
    """
    made = {entry.dump_id for entry in archive.entries}
    return [
        entry
        for entry in archive.entries
        if entry.kind == "ACL" and entry.is_about_others(made)
    ]


# The values in their texts may be passwords.
_SECRET = {
    "USER MAPPING",
    "SERVER",
    "SUBSCRIPTION",
    "FOREIGN TABLE",
    "DATABASE PROPERTIES",
}
_VALUE = re.compile(r"'(?:[^']|'')*'")
# pg_dump writes these by themselves or into their table's statement.
_WRITTEN_INTO_OTHERS = ("CHECK CONSTRAINT", "CONSTRAINT", "DEFAULT", "RULE")
_MADE_IN_PART = ("ACL", "COLLATION", "DATABASE PROPERTIES", "DOMAIN", "TABLE")
_SETTLED_SHOWN = 20
_CHECKS_SHOWN = 1000
_LINES_SHOWN = 20
_LINE_SHOWN = 160


def compare_definitions(
    archive: Contents,
    copy: CopyToDescribe,
    *,
    left_out: frozenset[int],
    reference: Callable[[], Contents],
) -> list[Check]:
    """Compare all definitions; the first check counts, one more for each difference.

    `reference` describes a database made from the archive's own statements; it is
    called only if something differs.

    Raises:
        DatabaseError: pg_dump could not describe the copy.
    """
    kept = [entry for entry in archive.entries if entry.dump_id not in left_out]
    lost = [entry for entry in archive.entries if entry.dump_id in left_out]
    expected = by_key(kept, copy, of_source=True, archive=archive.entries)
    # Part of it may be there, or a stand-in, which is not checked either.
    not_checked = {
        key for key in by_key(lost, copy, of_source=True) if key[0] in _MADE_IN_PART
    }
    described = by_key(describe(copy).entries, copy, of_source=False)
    observed = {key: each for key, each in described.items() if key not in not_checked}
    differing = sorted(
        key
        for key in expected.keys() | observed.keys()
        if expected.get(key) != observed.get(key)
    )
    grants_of_others = by_key(grants_of_others_in(archive), copy, of_source=True)
    open_questions = [
        key
        for key in differing
        if key in grants_of_others or _is_open(key, expected, observed)
    ]
    settled, detail = _settle(open_questions, observed, copy, reference)
    failed = [key for key in differing if key not in settled]
    number = sum(map(len, expected.values()))
    found = sum(map(len, observed.values()))
    if settled:
        names = ", ".join(map(_label, sorted(settled)[:_SETTLED_SHOWN]))
        detail = (
            f"{len(settled)} are written in other words by this server, after any "
            f"restore: {names}"
        )
    summary = Check(
        name="definitions",
        passed=not failed and bool(number or not found),
        expected=f"{number} statements",
        observed=f"{found} statements, {len(failed)} differ",
        detail=detail,
    )
    return [summary, *_differences(failed, expected, observed)]


def _is_open(key: Key, expected: Definitions, observed: Definitions) -> bool:
    """Return whether the server may have written a statement in other words.

    Owner and storage must be equal where both sides have the entry. Several entries of
    one name, as operators have, are in the order of their texts.
    """
    before, after = expected.get(key), observed.get(key)
    return (
        key[0] not in SKIPPED
        and (after is not None or key[0] in _WRITTEN_INTO_OTHERS)
        and _texts(before) != _texts(after)
        and (
            before is None
            or after is None
            or [e.belongings for e in before] == [e.belongings for e in after]
        )
    )


def _settle(
    open_questions: Sequence[Key],
    observed: Definitions,
    copy: CopyToDescribe,
    reference: Callable[[], Contents],
) -> tuple[set[Key], str]:
    """Return the keys whose words any restore changes, and what kept us from asking."""
    if not open_questions:
        return set(), ""
    try:
        restored = by_key(reference().entries, copy, of_source=False)
    except ServerFault:
        raise
    except DatabaseError as error:
        return set(), f"no reference could be made: {error.message}"
    return {
        key
        for key in open_questions
        if _texts(observed.get(key)) == _texts(restored.get(key))
    }, ""


def _texts(found: Sequence[Definition] | None) -> list[str]:
    return [each.text for each in found or ()]


def _differences(
    failed: Sequence[Key], expected: Definitions, observed: Definitions
) -> Iterator[Check]:
    for key in failed[:_CHECKS_SHOWN]:
        is_secret = key[0] in _SECRET
        before = _lines(expected.get(key), is_secret=is_secret)
        after = _lines(observed.get(key), is_secret=is_secret)
        if before is None or after is None:
            first, second = (
                "missing" if each is None else "there" for each in (before, after)
            )
        elif is_secret and before == after:
            first, second = "a value that may be a secret", "another value"
        else:
            first, second = _only(before, after), _only(after, before)
        yield Check(
            name=f"definition of {_label(key)}",
            passed=False,
            expected=first,
            observed=second,
        )
    if rest := failed[_CHECKS_SHOWN:]:
        yield Check(
            name="more definitions",
            passed=False,
            expected="equal",
            observed=f"{len(rest)} more differ",
            detail=", ".join(_label(key) for key in rest[:_CHECKS_SHOWN]),
        )


def _lines(found: Sequence[Definition] | None, *, is_secret: bool) -> list[str] | None:
    if found is None:
        return None
    lines = []
    for each in found:
        text = _VALUE.sub("'***'", each.text) if is_secret else each.text
        lines += [*text.splitlines(), f"owner {each.owner}"]
        lines += [f"tablespace {each.tablespace}", f"stored by {each.access_method}"]
    return lines


def _only(lines: Sequence[str], others: Sequence[str]) -> str:
    """Return the lines that the others do not have, or not as often."""
    left = Counter(others)
    found = []
    for line in lines:
        if left[line]:
            left[line] -= 1
        else:
            found.append(mask(line.strip())[:_LINE_SHOWN])
    if len(found) > _LINES_SHOWN:
        found[_LINES_SHOWN:] = [f"{len(found) - _LINES_SHOWN} more lines"]
    if found:
        return " / ".join(found)
    in_order = sorted(lines) != sorted(others)
    return "nothing in their place" if in_order else "the same lines in another order"


def _label(key: Key) -> str:
    kind, schema, name = key
    return f"{kind} {schema}.{name}" if schema else f"{kind} {name}"
