"""pg_dump's table patterns, resolved to the relations that they name.

The rules are those of psql's patterns as PostgreSQL documents them: `*` and `?` are
wildcards, double quotes keep case and take everything literally, a dot outside quotes
divides schema from name, and what has no schema means what the search path shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from opskit.errors import ConfigurationError
from opskit.postgres.connect import Connection, query_column
from opskit.postgres.sql_text import quoted


def excluded_relations(connection: Connection, patterns: Sequence[str]) -> list[int]:
    """Return the OIDs of the relations that any of the patterns names."""
    relations: set[int] = set()
    for pattern in patterns:
        schema, name = to_regexes(pattern)
        if schema is None:
            # pg_dump, too, looks at what the role sees by its own search path.
            connection.execute("RESET search_path")
        oids = query_column(
            connection,
            """
            SELECT c.oid FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = ANY ('{r,v,m,S,f,p}')
              AND c.relname OPERATOR(pg_catalog.~) %s COLLATE pg_catalog.default
              AND CASE WHEN %s::text IS NULL
                  THEN pg_catalog.pg_table_is_visible(c.oid)
                  ELSE n.nspname OPERATOR(pg_catalog.~) %s COLLATE pg_catalog.default
                  END
            """,
            name,
            schema,
            schema,
        )
        connection.execute("SET search_path = ''")
        relations.update(oids)
    return sorted(relations)


def is_exact(schema: str, name: str) -> bool:
    """Return whether `exact` can name a relation.

    pg_dump takes its arguments to be in the database's encoding, whatever that is.
    """
    return (schema + name).isascii() and (schema + name).isprintable()


def exact(schema: str, name: str) -> str:
    """Return the pattern that names one relation and no other."""
    return f"{quoted(schema)}.{quoted(name)}"


def to_regexes(pattern: str) -> tuple[str | None, str]:
    """Return the regular expressions of a pattern's schema (None for none) and name.

    Raises:
        ConfigurationError: it has more parts than schema and name.
    """
    parts = [""]
    quoted = False
    characters = iter(range(len(pattern)))
    for position in characters:
        character = pattern[position]
        if character == '"':
            if quoted and pattern[position + 1 : position + 2] == '"':
                parts[-1] += '"'
                next(characters)
            else:
                quoted = not quoted
        elif character == "." and not quoted:
            parts.append("")
        else:
            following = pattern[position + 1 : position + 2]
            parts[-1] += _translate(character, following, quoted=quoted)
    if len(parts) > 2:
        raise ConfigurationError(
            f"the table pattern {pattern} has more parts than schema and name",
            hint="Write it as schema.table; quote names that hold dots.",
        )
    anchored = [f"^({part})$" for part in parts]
    return (anchored[0] if len(anchored) == 2 else None, anchored[-1])


def _translate(character: str, following: str, *, quoted: bool) -> str:
    if quoted:
        return "\\" + character if character in "|*+?()[]{}.^$\\" else character
    if character == "*":
        return ".*"
    if character == "?":
        return "."
    if character == "$" or (character == "[" and following == "]"):
        return "\\" + character
    # Like PostgreSQL's own folding of names: ASCII alone.
    return character.lower() if character.isascii() else character
