"""What a server lacks for a set, or a role may not do, known before a restore."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from opskit.errors import ServerFault
from opskit.postgres import extensions, roles, survey
from opskit.postgres.archive.entry import OWNED_BY_SUPERUSERS, TocEntry
from opskit.postgres.connect import (
    Connection,
    query_column,
    query_value,
    quoted,
    server_major,
)
from opskit.postgres.inventory import FIRST_WITH_MEMBERSHIP_OPTIONS, Inventory, Role
from opskit.postgres.survey import Capabilities

# There is nothing that could be put in its place, or left out.
NEVER_DONE_WITHOUT = ("access-method", "lc_monetary")
_ALWAYS_KNOWN_LOCALES = ("C", "POSIX", "ucs_basic", "")
_SET_LOCALE = re.compile(
    r"^ALTER (?:DATABASE|ROLE) .* SET (lc_\w+) TO '([^']+)'", re.MULTILINE
)
_EXTENSION_HINT = "Install its package for the server's PostgreSQL."


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """One thing that the set needs and the server lacks.

    `name` is what a person calls it by, in `[drill] allow` too; `what` is the kind and
    `subject` the thing's own name.
    """

    what: str
    subject: str
    detail: str
    hint: str

    @property
    def name(self) -> str:
        return f"{self.what} {self.subject}"


def shortages(
    connection: Connection,
    inventory: Inventory,
    entries: Sequence[TocEntry],
    *,
    creates_roles: bool,
    is_throwaway: bool,
) -> list[Shortage]:
    """Return what a restore of this inventory and archive would fail at.

    `connection` may lead to any database of the server. `creates_roles` says that
    missing roles are made first; on a throw-away server tablespaces are made as well,
    and roles have other rights while the set is loaded.
    """
    offered = survey.capabilities(connection)

    def knows(locale: str | None) -> bool:
        known = locale is None or locale in _ALWAYS_KNOWN_LOCALES
        return known or survey.has_locale(connection, str(locale))

    found = [
        *_extensions(offered, inventory),
        *_libraries(connection, offered, inventory),
        *_locales(offered, inventory, knows),
        *_collations(connection, offered, inventory, knows),
        *_settings(connection, offered, inventory),
        *_settings_of_locales(entries, knows),
        *_access_methods(offered, entries),
        *_xml(connection, entries),
    ]
    if not creates_roles:
        found += _roles(offered, inventory, entries)
        found += _role_attributes(connection, inventory)
    if not is_throwaway:
        found += _each("tablespace", set(inventory.tablespaces) - offered.tablespaces)
        found += _owners(offered, inventory, entries)
    return found


def _extensions(offered: Capabilities, inventory: Inventory) -> Iterator[Shortage]:
    for each in inventory.extensions:
        name, version = each.name, each.version
        versions = offered.extensions.get(name)
        if versions is None:
            yield Shortage(
                what="extension",
                subject=name,
                detail=f"the server has no extension {name}; the set needs {version}",
                hint=_EXTENSION_HINT,
            )
        elif version not in versions:
            yield Shortage(
                what="extension-version",
                subject=name,
                detail=f"the set has {name} {version}; the server offers only "
                f"{', '.join(sorted(versions))}",
                hint=_EXTENSION_HINT,
            )


def _libraries(
    connection: Connection, offered: Capabilities, inventory: Inventory
) -> Iterator[Shortage]:
    missing = [
        name
        for name in inventory.preloaded
        if name in offered.extensions and not extensions.is_usable(connection, name)
    ]
    return _each("library", missing)


def _locales(
    offered: Capabilities,
    inventory: Inventory,
    knows: Callable[[str | None], bool],
) -> Iterator[Shortage]:
    locale = inventory.locale
    for name in sorted({locale.collate, locale.ctype}):
        if not knows(name):
            yield _locale(name, "the database")
    provider = locale.provider
    if (provider == "icu" and not offered.has_icu) or (
        provider == "builtin" and not offered.has_builtin_provider
    ):
        yield Shortage(
            what="provider",
            subject=provider,
            detail=f"the database's collations come from {provider}, "
            "which this server was built without",
            hint="Use PostgreSQL programs with that provider "
            "(the packages of every distribution have ICU).",
        )
    money = inventory.money_locale
    if inventory.has_money and money is not None and not knows(money):
        yield replace(
            _locale(money, "columns of type money (lc_monetary)"), what="lc_monetary"
        )


def _collations(
    connection: Connection,
    offered: Capabilities,
    inventory: Inventory,
    knows: Callable[[str | None], bool],
) -> Iterator[Shortage]:
    for each in inventory.collations:
        subject = f"{each.schema_name}.{each.name}"
        if each.schema_name == "pg_catalog":
            there = survey.has_collation(connection, "pg_catalog", each.name)
        elif each.provider == "icu":
            there = offered.has_icu
        elif each.provider == "builtin":
            there = offered.has_builtin_provider
        else:
            there = knows(each.locale)
        if not there:
            yield Shortage(
                what="collation",
                subject=subject,
                detail=f"the server lacks {each.provider} locale "
                f"{each.locale or each.name}, which the collation needs",
                hint="Install that locale on the server's machine, or a PostgreSQL "
                "that is built with its provider.",
            )


def _locale(name: str, where: str) -> Shortage:
    return Shortage(
        what="locale",
        subject=name,
        detail=f"the server's machine has no locale {name}, which is that of {where}",
        hint="Install the locale (Debian: locales-all, or locale-gen) "
        "and restart the server.",
    )


def _settings(
    connection: Connection, offered: Capabilities, inventory: Inventory
) -> Iterator[Shortage]:
    wanted = {
        name.lower() for each in inventory.database_settings for name in each.settings
    }
    # A name with a dot is a placeholder that any server accepts.
    names = {name for name in wanted - offered.settings if "." not in name}
    missing = {e for e in names if not survey.has_setting(connection, e)}
    return _each("setting", missing)


def _settings_of_locales(
    entries: Iterable[TocEntry], knows: Callable[[str | None], bool]
) -> Iterator[Shortage]:
    wanted = {
        found
        for entry in entries
        if entry.kind == "DATABASE PROPERTIES"
        for found in _SET_LOCALE.findall(entry.definition)
    }
    for setting, locale in sorted(wanted):
        if not knows(locale):
            lacking = _locale(locale, f"the database's setting {setting}")
            yield replace(lacking, what="setting", subject=setting)


def require_locales_of_roles(connection: Connection, statements: Iterable[str]) -> None:
    """Refuse roles with a locale that the server's machine does not have.

    Raises:
        ServerFault: the roles' own statements would fail at it.
    """
    wanted = {each for text in statements for each in _SET_LOCALE.findall(text)}
    for setting, locale in sorted(wanted):
        if not survey.has_locale(connection, locale):
            lacking = _locale(locale, f"a role's setting {setting}")
            raise ServerFault(lacking.detail, hint=lacking.hint)


def _access_methods(
    offered: Capabilities, entries: Iterable[TocEntry]
) -> Iterator[Shortage]:
    # One of the extensions may bring it.
    if any(entry.kind == "EXTENSION" for entry in entries):
        return iter(())
    made = {entry.name for entry in entries if entry.kind == "ACCESS METHOD"}
    used = {entry.access_method for entry in entries if entry.access_method}
    return _each("access-method", used - made - offered.access_methods)


def _xml(connection: Connection, entries: Iterable[TocEntry]) -> Iterator[Shortage]:
    """Yield a shortage if XML cannot be read: tables could be made, rows not loaded."""
    if any(each.holds_xml for each in entries) and not survey.has_xml(connection):
        yield from _each("feature", ["xml"])


def _roles(
    offered: Capabilities, inventory: Inventory, entries: Iterable[TocEntry]
) -> Iterator[Shortage]:
    needed = {*inventory.needed_roles, *(entry.owner for entry in entries)}
    return _each("role", needed - {""} - offered.roles)


def _role_attributes(
    connection: Connection, inventory: Inventory
) -> Iterator[Shortage]:
    there = {each.name: each for each in roles.take(connection)}
    majors = (inventory.server_major, server_major(connection))
    for each in inventory.roles:
        name = each.name
        if name not in inventory.needed_roles or name not in there:
            continue
        if differ := each.differences(there[name], majors=majors, with_password=False):
            yield Shortage(
                what="role-attributes",
                subject=name,
                detail=f"the server's role {name} differs in {', '.join(differ)}",
                hint="Make it as the set's roles.sql shows it, if it should be.",
            )


_TEXTS = {
    "access-method": (
        "tables are stored by {}, which this server lacks",
        _EXTENSION_HINT,
    ),
    "feature": (
        "tables of the set hold XML, which the server was built without",
        "Use a PostgreSQL that is built with libxml.",
    ),
    "library": (
        "the source preloads the library {} for its extension; the server does not, "
        "and cannot load it later",
        "Add it to shared_preload_libraries and restart the server.",
    ),
    "role": (
        "objects of the set belong to the role {} or name it",
        "Create the role on the server; the set's roles.sql shows how it was.",
    ),
    "setting": (
        "the database sets {}, which this server does not know",
        "Use a server of the same version and build.",
    ),
    "tablespace": (
        "tables of the set lie in the tablespace {}",
        "Create it; the set's tablespaces.sql shows how it was.",
    ),
}


def _each(what: str, names: Iterable[str]) -> Iterator[Shortage]:
    detail, hint = _TEXTS[what]
    for name in sorted(names):
        yield Shortage(what=what, subject=name, detail=detail.format(name), hint=hint)


def _owners(
    offered: Capabilities, inventory: Inventory, entries: Iterable[TocEntry]
) -> Iterator[Shortage]:
    """Yield what PostgreSQL gives to superusers alone, where its owner is none."""
    new = {each.name for each in inventory.roles if each.superuser}
    able = offered.superusers | (new - offered.roles) | {""}
    for entry in entries:
        if entry.kind in OWNED_BY_SUPERUSERS and entry.owner not in able:
            yield Shortage(
                what=entry.kind,
                subject=entry.name,
                detail=f"{entry.label} belongs to the role {entry.owner}, and the "
                "server gives it to superusers alone",
                hint=f"Make {entry.owner} a superuser while the set is loaded: "
                f"ALTER ROLE {quoted(entry.owner)} SUPERUSER, NOSUPERUSER afterwards.",
            )


_ROLE_HINT = (
    "Restore with a role that may: restore_url in [databases.NAME], or --to with a URL."
)
_ATTRIBUTES_OF_SUPERUSERS = ("superuser", "replication", "bypassrls")


def role_shortages(
    connection: Connection, inventory: Inventory, *, is_whole: bool = True
) -> list[Shortage]:
    """Return what keeps the connection's role from restoring a set on its server.

    Where not all of a set is restored, only what any part of it needs is looked at.
    """
    found = [*_major(connection, inventory), *_room(connection, inventory)]
    if survey.is_superuser(connection):
        return found
    user = str(query_value(connection, "SELECT current_user"))
    attributes = next(e for e in roles.take(connection) if e.name == user)
    if not attributes.createdb:
        found.append(
            Shortage(
                what="right",
                subject="CREATEDB",
                detail=f"the role {user} may not create databases",
                hint=f"{_ROLE_HINT} Or let a superuser run ALTER ROLE "
                f"{quoted(user)} CREATEDB.",
            )
        )
    if is_whole:
        found += _owners_out_of_reach(connection, inventory, user)
        found += _new_roles(connection, inventory, user, attributes)
        found += _extensions_for_superusers(connection, inventory, user)
    return found


def _major(connection: Connection, inventory: Inventory) -> Iterator[Shortage]:
    needed, found = inventory.server_major, server_major(connection)
    if found < needed:
        yield Shortage(
            what="major",
            subject=str(needed),
            detail=f"the server is PostgreSQL {found}, the set is from {needed}",
            hint=f"Restore to a server of major {needed} or newer; a dump does not go "
            "back to an older one.",
        )


def _room(connection: Connection, inventory: Inventory) -> Iterator[Shortage]:
    """Yield a shortage if the disk is too small, where the data folder lies here."""
    if not connection.info.host.startswith("/"):
        return
    query = "SELECT setting FROM pg_settings WHERE name = 'data_directory'"
    folder, needed_bytes = query_value(connection, query), inventory.size_bytes
    try:
        free_bytes = shutil.disk_usage(folder or "/nowhere").free
    except OSError:
        return  # in a container, or not for this user to see
    if free_bytes < needed_bytes:
        yield Shortage(
            what="room",
            subject=str(folder),
            detail=f"{folder} has {free_bytes // 2**20} MiB free, the database had "
            f"{needed_bytes // 2**20} MiB",
            hint="Free some space on the server's disk.",
        )


def _owners_out_of_reach(
    connection: Connection, inventory: Inventory, user: str
) -> Iterator[Shortage]:
    """Yield the roles that the copy's objects could not be given to."""
    has_set = server_major(connection) >= FIRST_WITH_MEMBERSHIP_OPTIONS
    for name in query_column(
        connection,
        "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) AND rolname !~ '^pg_' "
        "AND NOT (pg_has_role(oid, %s) AND pg_has_role(oid, 'USAGE')) ORDER BY 1",
        [*inventory.owners, inventory.owner],
        "SET" if has_set else "MEMBER",
    ):
        yield Shortage(
            what="right",
            subject=f"membership in {name}",
            detail=f"objects of the set belong to the role {name}, and {user} may not "
            "act as it",
            hint=f"{_ROLE_HINT} Or let a superuser run GRANT {quoted(name)} TO "
            f"{quoted(user)}.",
        )


def _new_roles(
    connection: Connection, inventory: Inventory, user: str, attributes: Role
) -> Iterator[Shortage]:
    of_superusers = {
        each.name
        for each in inventory.roles
        if any(getattr(each, attribute) for attribute in _ATTRIBUTES_OF_SUPERUSERS)
    }
    missing = set(inventory.needed_roles) - roles.names(connection)
    for name in sorted(missing & of_superusers if attributes.createrole else missing):
        yield Shortage(
            what="right",
            subject=f"creation of {name}",
            detail=f"the server has no role {name}, and {user} may not create it",
            hint=f"{_ROLE_HINT} Or create it before; the set's roles.sql shows how it "
            "was.",
        )


def _extensions_for_superusers(
    connection: Connection, inventory: Inventory, user: str
) -> Iterator[Shortage]:
    for name in query_column(
        connection,
        "SELECT DISTINCT v.name::text FROM pg_available_extensions e "
        "JOIN pg_available_extension_versions v "
        "ON v.name = e.name AND v.version = e.default_version "
        "WHERE v.superuser AND NOT v.trusted AND v.name = ANY (%s) ORDER BY 1",
        [each.name for each in inventory.extensions],
    ):
        yield Shortage(
            what="right",
            subject=f"extension {name}",
            detail=f"only a superuser may create the extension {name}, which {user} is "
            "not",
            hint=_ROLE_HINT,
        )
