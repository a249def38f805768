"""One entry of an archive's table of contents, and what its statements tell."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from opskit.errors import ArchiveError
from opskit.postgres.connect import unquoted

# Entries that hold rows, values and large objects, not definitions.
_DATA = {"TABLE DATA", "SEQUENCE SET", "MATERIALIZED VIEW DATA", "STATISTICS DATA"}
CONTENT_KINDS = _DATA | {"BLOB", "BLOBS", "BLOB METADATA", "BLOB COMMENTS"}
# What only a superuser may own when it is made; the owner may lose that right later.
OWNED_BY_SUPERUSERS = frozenset({"EVENT TRIGGER", "FOREIGN DATA WRAPPER"})
# Entries that belong to the object that they are about, whatever that is.
ABOUT_OBJECTS = ("ACL", "COMMENT", "SECURITY LABEL")
_IDENTIFIER = r'(?:"(?:[^"]|"")*"|[^\s".,()]+)'
_XML = re.compile(rf"(?m)^\s+{_IDENTIFIER} xml\b|\A\s*CREATE DOMAIN \S+ AS xml\b")
_COPY = re.compile(
    rf"COPY (?P<schema>{_IDENTIFIER})\.(?P<name>{_IDENTIFIER})\s+"
    r"(?:\((?P<columns>.*)\)\s+)?FROM stdin;\s*",
    re.DOTALL,
)
_SETVAL = re.compile(
    r"pg_catalog\.setval\(.*, (-?\d+), (true|false)\);\s*\Z", re.DOTALL
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TocEntry:
    """One object in the archive; no row is lost if one `after_data` is not made."""

    dump_id: int
    kind: str
    schema: str
    name: str
    owner: str
    definition: str
    copy_statement: str
    dependencies: tuple[int, ...]
    has_data: bool
    tablespace: str = ""
    access_method: str = ""
    after_data: bool = False

    @property
    def before_data(self) -> bool:
        """Whether rows may need it."""
        return not self.after_data and self.kind not in CONTENT_KINDS

    @property
    def label(self) -> str:
        """What a person calls it: kind, then the qualified name."""
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        # The names of user mappings begin with their kind.
        return name if self.kind == "USER MAPPING" else f"{self.kind} {name}"

    def is_about_others(self, made: Collection[int]) -> bool:
        """Whether what it is about is not made: it is built in or an extension's."""
        return (
            self.kind in ABOUT_OBJECTS
            and bool(self.dependencies)
            and not any(each in made for each in self.dependencies)
        )

    @property
    def holds_xml(self) -> bool:
        """Whether its columns or values are of the type xml."""
        return bool(_XML.search(self.definition))

    @property
    def loaded_into(self) -> tuple[str, str] | None:
        """Schema and name of the table that the rows are copied into, if another one.

        pg_dump loads a partition through the root of its tree where the restored server
        may route rows differently (hash partitions on an enum). ArchiveError: unknown
        form.
        """
        statement = self._copy()
        target = (unquoted(statement["schema"]), unquoted(statement["name"]))
        return None if target == (self.schema, self.name) else target

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the COPY statement in its order; ArchiveError if unknown."""
        columns = self._copy()["columns"] or ""
        return tuple(map(unquoted, re.findall(_IDENTIFIER, columns)))

    @property
    def sequence_value(self) -> tuple[int, bool]:
        """The value of a SEQUENCE SET, and whether it was used; or ArchiveError."""
        value = self._known("value of sequence", _SETVAL.search(self.definition))
        return int(value[1]), value[2] == "true"

    def _copy(self) -> re.Match[str]:
        return self._known("COPY statement of", _COPY.fullmatch(self.copy_statement))

    def _known(self, what: str, parts: re.Match[str] | None) -> re.Match[str]:
        if parts is None:
            raise ArchiveError(
                f"the {what} {self.schema}.{self.name} is not understood",
                hint="This pg_dump may be newer than opskit knows; update opskit.",
            )
        return parts
