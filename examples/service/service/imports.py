"""Imports: tasks out of a JSON file, all or none, and compared with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException

from service import accounts, audit, documents, events
from service.accounts import Account
from service.database import Connection
from service.documents import Document, Text, Time
from service.tasks import Details, Status, Title

_LOCK = 7_423_003  # one import at a time
_STATEMENT_TIMEOUT = "'5min'"
_ERRORS_MAX = 3


class Refused(Exception):
    """A file cannot be imported; the text says why, without what is in it."""


class Record(Document):
    """A task, the way the store in a file keeps it."""

    key: Annotated[Text, Field(min_length=1, max_length=100)]
    owner: Annotated[Text, Field(max_length=100)] | None = None
    title: Title
    details: Details = ""
    status: Annotated[Status, Field(strict=False)] = Status.OPEN
    due_at: Time | None = None


class Store(Document):
    """The file: its version, and the tasks."""

    version: Literal[1]
    tasks: list[Record]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did; `digest` is that of all records, whatever their order."""

    records: int
    added: int
    digest: str


def read(content: bytes) -> list[Record]:
    """Return the records of a file.

    Raises:
        Refused: one of them is not valid, or is there twice.
    """
    try:
        records = Store.model_validate(documents.read(content)).tasks
    except HTTPException as error:
        raise Refused(error.detail) from None
    except ValidationError as error:
        wrong = [
            ".".join(map(str, each["loc"])) + ": " + each["msg"]
            for each in error.errors(include_input=False)[:_ERRORS_MAX]
        ]
        raise Refused("; ".join(wrong)) from None
    if len({(each.owner, each.key) for each in records}) < len(records):
        raise Refused("two records of one owner have the same key")
    return records


async def from_file(connection: Connection, path: Path) -> Imported:
    """Import a file whose records name their owners, in the caller's transaction.

    Raises:
        Refused: as with `load`; or the file was changed meanwhile.
    """
    content = path.read_bytes()
    done = await load(connection, read(content))
    if path.read_bytes() != content:
        raise Refused("the file changed while it was imported")
    return done


async def load(
    connection: Connection,
    records: Sequence[Record],
    *,
    owner: Account | None = None,
) -> Imported:
    """Import records in the caller's transaction; `owner` owns those that name nobody.

    A record that was imported before is left alone, whatever became of its task.

    Raises:
        Refused: an owner is not known, a record differs from what was imported under
            its key, or the database does not hold what the file says.
    """
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    await connection.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT}")
    owners = await _owners(connection, records, owner)
    digests = {
        (owners[each.owner].id, each.key): _digest(each.model_dump())
        for each in records
    }
    await _stage(connection, records, owners, digests)
    await _refuse_changed(connection)
    added = await _insert(connection)
    await _compare(connection, digests, sum(added.values()))
    for account in sorted(set(owners.values()), key=lambda each: each.id):
        if number := added.get(account.id):
            await audit.record(connection, account, "tasks.imported", f"tasks:{number}")
            await events.record(
                connection, "tasks.imported", account, {"added": number}
            )
    everything = "\n".join(sorted(digests.values())).encode()
    return Imported(
        records=len(records),
        added=sum(added.values()),
        digest=hashlib.sha256(everything).hexdigest(),
    )


async def _owners(
    connection: Connection, records: Sequence[Record], owner: Account | None
) -> dict[str | None, Account]:
    owners: dict[str | None, Account] = {}
    for name in {each.owner for each in records}:
        if owner is not None and name in (None, owner.name):
            owners[name] = owner
        elif name is None:
            raise Refused("a record has no owner")
        elif (
            owner is not None
            or (found := await accounts.find(connection, name)) is None
        ):
            raise Refused("a record has an owner that is not known here")
        else:
            owners[name] = found
    return owners


async def _stage(
    connection: Connection,
    records: Sequence[Record],
    owners: Mapping[str | None, Account],
    digests: Mapping[tuple[int, str], str],
) -> None:
    """Put the records into a table of this transaction."""
    await connection.execute(
        "CREATE TEMPORARY TABLE batch (LIKE imported, title text, details text, "
        "status text, due_at timestamptz) ON COMMIT DROP"
    )
    await connection.execute("ALTER TABLE batch ALTER task_id DROP NOT NULL")
    async with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY batch (account_id, key, digest, title, details, status, due_at) "
            "FROM STDIN"
        ) as copy,
    ):
        for each in records:
            key = owners[each.owner].id, each.key
            values = each.title, each.details, each.status, each.due_at
            await copy.write_row((*key, digests[key], *values))


async def _refuse_changed(connection: Connection) -> None:
    cursor = await connection.execute(
        "SELECT count(*) AS number FROM batch JOIN imported USING (account_id, key) "
        "WHERE batch.digest <> imported.digest"
    )
    row = await cursor.fetchone()
    if row and row["number"]:
        raise Refused(f"{row['number']} records differ from what was imported before")


async def _insert(connection: Connection) -> dict[int, int]:
    """Make tasks of the records that are new, and return how many by account."""
    await connection.execute(
        "DELETE FROM batch USING imported WHERE batch.account_id = imported.account_id "
        "AND batch.key = imported.key"
    )
    await connection.execute(
        "UPDATE batch SET task_id = nextval(pg_get_serial_sequence('tasks', 'id'))"
    )
    await connection.execute(
        "INSERT INTO tasks (id, owner_id, title, details, status, due_at) "
        "OVERRIDING SYSTEM VALUE "
        "SELECT task_id, account_id, title, details, status, due_at FROM batch"
    )
    await connection.execute(
        "INSERT INTO imported (account_id, key, digest, task_id) "
        "SELECT account_id, key, digest, task_id FROM batch"
    )
    cursor = await connection.execute(
        "SELECT account_id, count(*) AS number FROM batch GROUP BY account_id"
    )
    return {row["account_id"]: row["number"] async for row in cursor}


async def _compare(
    connection: Connection, digests: Mapping[tuple[int, str], str], added: int
) -> None:
    """Compare what the database holds now with the file."""
    cursor = await connection.execute(
        "SELECT account_id, key, tasks.* FROM imported "
        "JOIN tasks ON tasks.id = task_id AND owner_id = account_id "
        "WHERE task_id IN (SELECT task_id FROM batch)"
    )
    same = 0
    async for row in cursor:
        same += digests[row["account_id"], row["key"]] == _digest(row)
    if same != added:
        raise Refused(f"{added - same} of {added} records came out different")


def _digest(values: Mapping[str, Any]) -> str:
    """Return the digest of a record, or of the row that was made of it."""
    due_at: datetime | None = values["due_at"]
    canonical = [
        values["key"],
        values["title"],
        values["details"],
        str(values["status"]),
        due_at and due_at.astimezone(UTC).isoformat(),
    ]
    return hashlib.sha256(json.dumps(canonical).encode()).hexdigest()
