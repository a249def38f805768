"""Tasks: what is to be done; each belongs to one account, and only it sees it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from service import audit, events
from service.accounts import Account, Reader, Writer
from service.database import Connection
from service.documents import Document, Id, Route, Text, Time
from service.pages import Page, Wanted
from service.state import Current

router = APIRouter(prefix="/api/tasks", tags=["tasks"], route_class=Route)

_LIST = (
    "SELECT * FROM tasks WHERE owner_id = %(owner)s "
    "AND (%(status)s::text IS NULL OR status = %(status)s)"
)
_READ = "SELECT * FROM tasks WHERE id = %s AND owner_id = %s"
_LOCK = "SELECT * FROM tasks WHERE id = %s AND owner_id = %s FOR UPDATE"


class Status(StrEnum):
    """How far a task is."""

    OPEN = "open"
    DONE = "done"


class Task(BaseModel):
    """A task, as clients see it."""

    id: int
    title: str
    details: str
    status: Status
    due_at: datetime | None
    created_at: datetime
    updated_at: datetime


Title = Annotated[Text, Field(min_length=1, max_length=200)]
Details = Annotated[Text, Field(max_length=10_000)]


class WantedTasks(Wanted):
    """Which tasks are wanted."""

    status: Status | None = None


class NewTask(Document):
    """A task that is to be made."""

    title: Title
    details: Details = ""
    due_at: Time | None = None


class Change(Document):
    """What is to be different in a task; what is left out stays as it is."""

    title: Title = ""
    details: Details = ""
    status: Annotated[Status, Field(strict=False)] = Status.OPEN
    due_at: Time | None = None


@router.get("")
async def list_tasks(
    wanted: Annotated[WantedTasks, Query()], state: Current, account: Reader
) -> Page[Task]:
    """Return the account's tasks in the order of their ids."""
    async with state.database.transaction() as connection:
        return await Page[Task].read(connection, _LIST, wanted, owner=account.id)


@router.post("", status_code=201)
async def create_task(new: NewTask, state: Current, account: Writer) -> Task:
    """Make a task of the account."""
    async with state.database.transaction() as connection:
        return await add(connection, account, new)


async def add(connection: Connection, account: Account, new: NewTask) -> Task:
    """Make a task in the caller's transaction, and record that."""
    cursor = await connection.execute(
        "INSERT INTO tasks (owner_id, title, details, due_at) "
        "VALUES (%s, %s, %s, %s) RETURNING *",
        [account.id, new.title, new.details, new.due_at],
    )
    task = Task.model_validate(await cursor.fetchone())
    await _record(connection, account, "task.created", task)
    return task


async def _record(
    connection: Connection, account: Account, action: str, task: Task
) -> None:
    await audit.record(connection, account, action, f"task:{task.id}")
    await events.record(connection, action, account, task.model_dump(mode="json"))


@router.get("/{task_id}")
async def read_task(task_id: Id, state: Current, account: Reader) -> Task:
    """Return one task of the account."""
    async with state.database.transaction() as connection:
        return await _own(connection, account.id, task_id)


@router.patch("/{task_id}")
async def change_task(
    task_id: Id, change: Change, state: Current, account: Writer
) -> Task:
    """Change a task of the account."""
    async with state.database.transaction() as connection:
        old = await _own(connection, account.id, task_id, _LOCK)
        new = old.model_copy(update=change.model_dump(exclude_unset=True))
        cursor = await connection.execute(
            "UPDATE tasks SET title = %s, details = %s, status = %s, due_at = %s, "
            "updated_at = now() WHERE id = %s AND owner_id = %s "
            "RETURNING *",
            [new.title, new.details, new.status, new.due_at, task_id, account.id],
        )
        task = Task.model_validate(await cursor.fetchone())
        await _record(connection, account, "task.changed", task)
    return task


async def _own(
    connection: Connection, owner_id: int, task_id: int, query: str = _READ
) -> Task:
    cursor = await connection.execute(query, [task_id, owner_id])
    row = await cursor.fetchone()
    if row is None:
        raise HTTPException(404, "there is no such task")
    return Task.model_validate(row)
