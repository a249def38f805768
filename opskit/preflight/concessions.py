"""Concessions: what a copy does without because the server lacks it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from opskit.catalog.manifest import DatabaseManifest, SequenceRecord, TableRecord
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import with_dependents
from opskit.postgres.connect import unquoted
from opskit.postgres.inventory import Inventory, Locale
from opskit.postgres.schema import SchemaObject
from opskit.preflight.shortages import Shortage

# What the contents hold of an extension's own tables and sequences.
_VALUES = ("TABLE DATA", "SEQUENCE SET")
# Entries that name roles in their own text; grants and owners pg_restore can leave out.
_NAME_ROLES = ("POLICY", "USER MAPPING")
_ROLE = r'(?:"(?:[^"]|"")*"|[^\s,(;]+)'
_ROLES = re.compile(
    rf" TO (?P<roles>{_ROLE}(?:, {_ROLE})*)(?= USING \(| WITH CHECK \(|;)"
    rf"| FOR (?P<mapped>{_ROLE}) SERVER "
)
_STAND_IN_LOCALE = Locale(provider="libc", collate="C", ctype="C")


_Named = TypeVar("_Named", TableRecord, SequenceRecord)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An entry that was not made, and why: the server's words and their SQLSTATE.

    One `is_outside` reads what is not in the database, and was kept from that. `also`
    are the dump ids of entries that lack a part for it.
    """

    entry: TocEntry
    error: str
    sqlstate: str = ""
    is_outside: bool = False
    also: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """What `--accept-failures` and `allow` call it."""
        if self.entry.kind == "EXTENSION":
            return f"extension {self.entry.name}"  # as where the server lacks it
        return self.entry.label

    @property
    def is_shortage(self) -> bool:
        """Whether another server may well make it: the set is not to blame."""
        return (
            self.entry.kind in _MADE_OF_FILES
            or self.sqlstate.startswith(_LACKING)
            or _IN_C.search(self.entry.definition) is not None
        )

    def as_shortage(self) -> Shortage:
        kind, _, subject = self.name.partition(" ")
        return Shortage(
            what=kind,
            subject=subject,
            detail=f"it could not make {self.name}: {self.error}",
            hint="Use a server of the same build, with the libraries and files that "
            "the source's has.",
        )

    @property
    def reason(self) -> str:
        if self.is_outside:
            return "it reads foreign tables, and a drill connects to nothing outside"
        return f"it could not be made: {self.error}"

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "error": self.error}

    def excuses(self, missing: SchemaObject) -> bool:
        """Return whether an object is not there because this entry is not."""
        if self.entry.kind == "INDEX ATTACH":
            return missing.kind == "index" and missing.name in self.entry.definition
        kinds = _MADE_BY.get(self.entry.kind, ())
        schema, tag = self.entry.schema, self.entry.name
        name = _QUOTED.sub(lambda each: each[1].replace('""', '"'), missing.name)
        # Of a table and what is on it, as the tag names them, either may hold blanks.
        own = [tag, *(tag[i + 1 :] for i, each in enumerate(tag) if each == " ")]
        return missing.kind in kinds and any(
            name in (each, f"{schema}.{each}")
            or name.startswith((f"{each} on ", f"{schema}.{each} to "))
            or name.startswith(f"{schema}.{each}.")
            for each in own
        )


# What is made by files of the server's machine: scripts, libraries, dictionaries.
_MADE_OF_FILES = (
    "EXTENSION",
    "PROCEDURAL LANGUAGE",
    "COLLATION",
    "ACCESS METHOD",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH TEMPLATE",
    "TEXT SEARCH PARSER",
)
# A file that is missing or unreadable, a feature that was not built in, a library that
# is not preloaded, a right, an option of a foreign-data wrapper.
_LACKING = ("58P01", "F0", "0A", "55000", "42501", "HV")
_IN_C = re.compile(r"\n\s+LANGUAGE c\b")
# The kinds of objects that are missing where an entry of a kind is.
_MADE_BY = {
    "INDEX": ("index",),
    "CONSTRAINT": ("constraint", "index"),
    "CHECK CONSTRAINT": ("constraint",),
    "FK CONSTRAINT": ("constraint",),
    "TRIGGER": ("trigger",),
    "RULE": ("rule",),
    "POLICY": ("policy",),
    "EVENT TRIGGER": ("event trigger",),
    "PUBLICATION": ("publication",),
    "ACL": ("grant",),
    "ROW SECURITY": ("table",),
}
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True, kw_only=True)
class Concessions:
    """What somebody accepted: shortages and failures.

    `left_out` holds the dump ids of entries that are not restored for the shortages.
    """

    accepted: tuple[Shortage, ...] = ()
    left_out: frozenset[int] = frozenset()
    failures: tuple[Failure, ...] = ()

    def subjects(self, what: str) -> frozenset[str]:
        """Return the names of what is missing of one kind."""
        return frozenset(each.subject for each in self.accepted if each.what == what)

    @property
    def without_owners(self) -> bool:
        return bool(self.subjects("role"))

    @property
    def without_tablespaces(self) -> bool:
        return bool(self.subjects("tablespace"))

    @property
    def without_locale(self) -> bool:
        return bool(self.subjects("locale") or self.subjects("provider"))

    @property
    def names_everything(self) -> bool:
        """Whether all objects are restored, with their owners."""
        return not self.without_owners and not self.left_out

    @property
    def not_made(self) -> frozenset[int]:
        """The dump ids of all entries that the copy does not have."""
        return self.left_out.union(
            *({each.entry.dump_id, *each.also} for each in self.failures)
        )

    @property
    def names(self) -> list[str]:
        shortages = [each.name for each in self.accepted]
        return shortages + [each.name for each in self.failures]

    def excuse(self, missing: SchemaObject) -> bool:
        """Return whether an object need not be there as it was."""
        return any(each.excuses(missing) for each in self.failures)

    def inventory(self, inventory: Inventory) -> Inventory:
        if not self.without_locale:
            return inventory
        return inventory.model_copy(update={"locale": _STAND_IN_LOCALE})

    def entries(self, entries: Iterable[TocEntry]) -> list[TocEntry]:
        return [each for each in entries if each.dump_id not in self.left_out]

    def kept(
        self, records: Iterable[_Named], kind: str, entries: Iterable[TocEntry]
    ) -> tuple[_Named, ...]:
        lost = {
            (entry.schema, entry.name)
            for entry in entries
            if entry.kind == kind and entry.dump_id in self.left_out
        }
        return tuple(
            each for each in records if (each.schema_name, each.name) not in lost
        )

    def unmade(self, entries: Iterable[TocEntry]) -> list[tuple[str, str]]:
        """Return what is not checked, and why; nothing of it may be called passed."""
        found = []
        for each in self.accepted:
            for check in _UNMADE.get(each.what, []):
                found.append((check.format(each.subject), each.detail))
        found += [
            (entry.label, "it needs what the server lacks and was not restored")
            for entry in entries
            if entry.dump_id in self.left_out and entry.kind != "COLLATION"
        ]
        found += [(each.name, each.reason) for each in self.failures]
        if not self.names_everything:
            found.append(("objects by name and state", "some were not restored"))
        return found


_UNMADE = {
    "extension": ["extension {} and all that depends on it"],
    "library": ["extension {} and all that depends on it"],
    "extension-version": ["version of the extension {}"],
    "locale": ["locale and order of the database"],
    "provider": ["locale and order of the database"],
    "collation": ["collation {}"],
    "setting": ["setting {}, and all other properties of the database"],
    "access-method": ["access method {}"],
    "feature": ["what needs {}"],
    "role": ["role {}, owners and grants, properties of the database"],
    "role-attributes": ["attributes of the role {}"],
    "tablespace": ["tablespace {}, and in which one anything lies"],
}


def accept(
    entries: Sequence[TocEntry],
    accepted: Iterable[Shortage],
    manifest: DatabaseManifest,
) -> Concessions:
    """Return what is done without for these shortages."""
    known = tuple(accepted)
    plain = Concessions(accepted=known)
    extensions = plain.subjects("extension") | plain.subjects("library")
    collations = plain.subjects("collation")
    roles = plain.subjects("role")
    names = {each.name for each in known}
    lost = {
        entry.dump_id
        for entry in entries
        if (entry.kind == "EXTENSION" and entry.name in extensions)
        or entry.label in names
        or (entry.holds_xml and "feature xml" in names)
    }
    records: list[TableRecord | SequenceRecord] = [
        *manifest.tables,
        *manifest.sequences,
    ]
    theirs = {
        (each.schema_name, each.name)
        for each in records
        if each.extension in extensions
    }
    lost |= {
        entry.dump_id
        for entry in entries
        if entry.kind in _VALUES and (entry.schema, entry.name) in theirs
    }
    gone = with_dependents(entries, lost) | {
        entry.dump_id
        for entry in entries
        if entry.kind in _NAME_ROLES and roles & _roles_in(entry.definition)
    }
    # A stand-in takes its place, so what depends on it is restored.
    replaced = {
        entry.dump_id
        for entry in entries
        if entry.kind == "COLLATION" and f"{entry.schema}.{entry.name}" in collations
    }
    return Concessions(accepted=known, left_out=frozenset(gone | replaced))


def _roles_in(statement: str) -> set[str]:
    """Return the roles that a policy is for, or that a user mapping maps."""
    found = _ROLES.search(statement)
    if found is None:
        return set()
    names = re.findall(_ROLE, found["roles"] or found["mapped"])
    return set(map(unquoted, names))
