"""Errors: the one form in which the service refuses, whatever went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from fastapi.exceptions import RequestValidationError
from psycopg import OperationalError
from psycopg_pool import PoolTimeout, TooManyRequests
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs

_CODES = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    409: "conflict",
    413: "body_too_large",
    415: "media_type",
    422: "invalid",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
    504: "timeout",
}
_MESSAGES_MAX = 5
_log = structlog.get_logger()


class Error(BaseModel):
    """What went wrong, for a program and for a person."""

    code: str
    message: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The body of every answer from 400 on."""

    error: Error


def answer(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error answer to the present request."""
    error = Error(
        code=_CODES.get(status, "refused"),
        message=message,
        request_id=logs.request_id(),
    )
    return JSONResponse(ErrorAnswer(error=error).model_dump(), status, headers)


def of(error: Exception) -> JSONResponse:
    """Return the answer that an exception means; log what nobody foresaw."""
    if isinstance(error, HTTPException):
        return answer(error.status_code, error.detail, error.headers)
    if isinstance(error, RequestValidationError):
        return answer(422, _told(error))
    if isinstance(error, OperationalError | PoolTimeout | TooManyRequests):
        _log.warning("database unavailable", reason=str(error))
        message = "the database is not available"
        return answer(503, message, {"Retry-After": "2"})
    _log.error("request failed", exc_info=error)
    return answer(500, "internal error")


def _told(error: RequestValidationError) -> str:
    """Say what is wrong where, without the values that were sent."""
    told = [
        ".".join(str(part)[:64] for part in each["loc"]) + ": " + each["msg"]
        for each in error.errors()[:_MESSAGES_MAX]
    ]
    return "; ".join(told)


async def handler(_request: Request, error: Exception) -> JSONResponse:
    """Answer to an exception that FastAPI handles."""
    return of(error)


class Errors:
    """Middleware: turns an exception into an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer if that fails before an answer began."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            _log.info("the client has gone")
        except Exception as error:
            if has_begun:
                raise
            await of(error)(scope, receive, send)
