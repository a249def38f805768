"""The inventory of a database: what a restore of it needs from its surroundings."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool

# Since this major a membership says on its own whether rights are inherited.
FIRST_WITH_MEMBERSHIP_OPTIONS = 16

_Integer = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
_Size = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class _Record(BaseModel):
    # A later version of the same format may add keys; they are not ours to refuse.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Locale(_Record):
    """How the database sorts texts; `version` is that of the system's collations."""

    provider: str = ""
    collate: str = ""
    ctype: str = ""
    locale: str | None = None
    icu_rules: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        parts = self.model_dump(exclude={"version"})
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


class Role(_Record):
    """A role of the server: its attributes, settings and memberships.

    Of each setting there is the name and a digest, of the password a digest of its
    hash. Every membership begins with the role and whether it may be granted on; the
    rest are options that not every major has. None is what the record does not tell.
    """

    name: str
    superuser: StrictBool | None = None
    inherit: StrictBool | None = None
    createrole: StrictBool | None = None
    createdb: StrictBool | None = None
    login: StrictBool | None = None
    replication: StrictBool | None = None
    bypassrls: StrictBool | None = None
    connection_limit: _Integer | None = None
    valid_until: str | None = None
    comment: str | None = None
    settings: tuple[str, ...] | None = None
    parameters: tuple[str, ...] | None = None
    member_of: tuple[tuple[str | bool | None, ...], ...] | None = None
    password: str | None = None
    password_unread: StrictBool = False

    @property
    def groups(self) -> frozenset[str]:
        """The roles that this one is a member of."""
        return frozenset(str(group) for group, *_options in self.member_of or ())

    def differences(
        self,
        observed: Role,
        *,
        majors: tuple[int, int],
        with_password: bool = True,
        with_parameters: bool = True,
    ) -> list[str]:
        """Return the fields in which the same role of another server differs.

        Passwords that could not be read, and options of memberships that one major
        lacks, are not compared. Grants on settings are recorded with the first role
        wherever somebody else has one: compare those of the others.
        """
        ignored = {"password_unread"}
        if not with_password or self.password_unread:
            ignored.add("password")
        if not with_parameters:
            ignored.add("parameters")
        with_options = min(majors) >= FIRST_WITH_MEMBERSHIP_OPTIONS

        def comparable(role: Role, field: str) -> object:
            if field == "member_of" and not with_options:
                return sorted((each[:2] for each in role.member_of or ()), key=str)
            return getattr(role, field)

        return [
            field
            for field in Role.model_fields
            if field not in ignored
            and comparable(self, field) != comparable(observed, field)
        ]


class Extension(_Record):
    """An extension of the database, in its version."""

    name: str
    version: str = ""
    schema_name: str = Field(default="", alias="schema")
    owner: str | None = None


class Collation(_Record):
    """A collation of the database, or one built in that something uses."""

    schema_name: str = Field(alias="schema")
    name: str
    provider: str = ""
    locale: str | None = None


class DatabaseSettings(_Record):
    """The names of what is set for the database, for one role or for all."""

    role: str | None = None
    settings: tuple[str, ...] = ()


class Loss(_Record):
    """Something in the database that no dump holds, and the reason."""

    name: str
    reason: str = ""


class Inventory(_Record):
    """See `docs/format.md` for each field."""

    database: str = ""
    server_version: str = ""
    encoding: str = ""
    owner: str = ""
    comment: str | None = None
    acl: tuple[str, ...] | None = None
    connection_limit: _Integer = -1
    locale: Locale = Locale()
    roles: tuple[Role, ...] = ()
    needed_roles: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    extensions: tuple[Extension, ...] = ()
    collations: tuple[Collation, ...] = ()
    tablespaces: tuple[str, ...] = ()
    settings: dict[str, str | None] = {}
    database_settings: tuple[DatabaseSettings, ...] = ()
    has_money: StrictBool = False
    has_public: StrictBool = True
    not_dumped: tuple[str, ...] = ()
    beyond_dumps: tuple[Loss, ...] = ()
    system_identifier: str = ""
    first_role: str = ""
    size_bytes: _Size = 0
    role_passwords: StrictBool = False

    @property
    def server_major(self) -> int:
        """The major of the server that the database is on."""
        return int(re.split(r"\D", self.server_version, maxsplit=1)[0])

    @property
    def money_locale(self) -> str | None:
        """The locale that the texts of type money are written in."""
        return self.settings.get("lc_monetary")

    @property
    def preloaded(self) -> list[str]:
        """What is preloaded for extensions, by name, as far as the role sees it."""
        names = library_names(self.settings.get("shared_preload_libraries") or "")
        extensions = {each.name for each in self.extensions}
        return [name for name in names if name in extensions]


def library_names(setting: str) -> list[str]:
    """Return the libraries that a setting lists, without folder and suffix."""
    names = (each.strip(' "') for each in setting.split(","))
    return [each.removeprefix("$libdir/").removesuffix(".so") for each in names if each]
