"""Health: whether the service lives, is ready, and how its parts are."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from service import uploads
from service.accounts import Admin
from service.state import Current, State

router = APIRouter(tags=["health"])
_SECONDS_MAX = 1.0
_log = structlog.get_logger()


class Status(StrEnum):
    """How a part, or the whole, is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class Part(BaseModel):
    """One part of the service, or what it stands on."""

    status: Status


class Health(BaseModel):
    """The service and its parts."""

    status: Status
    version: str
    uptime_seconds: float
    services: dict[str, Part]


class Simple(BaseModel):
    """One word."""

    status: str


@router.get("/health/live")
async def live() -> Simple:
    """Answer as long as the process can."""
    return Simple(status="ok")


@router.get("/ready", responses={503: {"model": Simple}})
async def ready(state: Current) -> JSONResponse:
    """Say whether requests should come here."""
    is_ready = state.subscriptions.ready and not state.stopping.is_set()
    is_ready = is_ready and await _answers(_database, state)
    status = "ready" if is_ready else "not ready"
    return JSONResponse({"status": status}, 200 if is_ready else 503)


@router.get("/health", response_model=Health, responses={503: {"model": Health}})
async def health(state: Current) -> JSONResponse:
    """Say how every part is; without the database the service is unhealthy."""
    database, redis = await asyncio.gather(
        _answers(_database, state), _answers(_redis, state)
    )
    parts = {
        "database": Status.HEALTHY if database else Status.UNHEALTHY,
        "redis": Status.HEALTHY if redis else Status.DEGRADED,
        "disk": _enough(
            disk_free(state.settings.state_dir), state.settings.disk_free_min
        ),
        "memory": _enough(state.settings.memory_max, memory_used()),
    }
    worst = max(parts.values(), key=list(Status).index)
    document = Health(
        status=worst,
        version=state.settings.version,
        uptime_seconds=round(time.monotonic() - state.began, 3),
        services={name: Part(status=each) for name, each in parts.items()},
    )
    return JSONResponse(
        document.model_dump(mode="json"), 503 if worst is Status.UNHEALTHY else 200
    )


def hidden_unless_enabled(state: Current) -> None:
    """Refuse as if the route did not exist, unless a setting enables it."""
    if not state.settings.diagnostics:
        raise HTTPException(404, "Not Found")


@router.get("/diagnostics", dependencies=[Depends(hidden_unless_enabled)])
async def diagnostics(_account: Admin, state: Current) -> dict[str, Any]:
    """Tell administrators about the process."""
    return {
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "memory_bytes": memory_used(),
        "disk_free_bytes": disk_free(state.settings.state_dir),
        "tasks": len(asyncio.all_tasks()),
        "database": state.database.statistics(),
        "imports": uploads.state_file(state.settings).read(),
    }


@router.get("/diagnostics/wait", dependencies=[Depends(hidden_unless_enabled)])
async def wait(
    _account: Admin, seconds: Annotated[float, Query(ge=0, le=60)]
) -> Simple:
    """Take time, within the limits of every request: these can be tried with it."""
    await asyncio.sleep(seconds)
    return Simple(status="ok")


def disk_free(folder: Path) -> int:
    """Return the free bytes where the folder is."""
    return shutil.disk_usage(folder).free


def memory_used() -> int:
    """Return the bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _enough(have: int, need: int) -> Status:
    return Status.HEALTHY if have >= need else Status.DEGRADED


async def _database(state: State) -> None:
    await state.database.ping(_SECONDS_MAX)


async def _redis(state: State) -> None:
    await state.rates.ping()


async def _answers(ask: Callable[[State], Awaitable[None]], state: State) -> bool:
    """Say whether a part answers in time; one that hangs is not waited for."""
    asking: asyncio.Future[None] = asyncio.ensure_future(ask(state))
    done, _ = await asyncio.wait({asking}, timeout=_SECONDS_MAX)
    if not done:
        asking.cancel()
        asking.add_done_callback(lambda late: late.cancelled() or late.exception())
        return False
    if (error := asking.exception()) is not None:
        _log.warning("no answer", part=ask.__name__.strip("_"), reason=repr(error))
    return error is None
