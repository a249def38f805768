"""Documents: JSON that clients send, read strictly, and the types of its parts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from starlette.exceptions import HTTPException
from starlette.responses import Response

_DEPTH_MAX = 16
_DIGITS_MAX = 32
_TIME = re.compile(r"\d{4}-\d\d-\d\dT", re.ASCII)
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def _no_controls(text: str) -> str:
    if any(ord(each) < 32 and each not in "\t\n" for each in text):
        raise ValueError("control characters are not allowed")
    return text


def _is_written_out(value: object) -> object:
    if not isinstance(value, str) or not _TIME.match(value):
        raise ValueError("a time must be written as in RFC 3339")
    return value


def _in_utc(time: datetime) -> datetime:
    if not _FIRST <= time <= _LAST:
        raise ValueError("a time must lie between the years 1900 and 9998")
    return time.astimezone(UTC)


Text = Annotated[str, AfterValidator(_no_controls)]
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Time = Annotated[
    AwareDatetime,
    Field(strict=False),
    BeforeValidator(_is_written_out),
    AfterValidator(_in_utc),
]


class Document(BaseModel):
    """A JSON object in a request: types are strict, unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


def read(body: bytes) -> Any:
    """Return a JSON document.

    Raises:
        HTTPException: it is none, or nobody means it well.
    """
    try:
        document = json.loads(
            body.decode(),
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_int=_integer,
        )
        _walk(document, _DEPTH_MAX)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {_reason(error)}") from None
    return document


def _walk(part: object, depth: int) -> None:
    if depth == 0:
        raise ValueError("nested too deep")
    if isinstance(part, str):
        part.encode()  # half a surrogate pair is no text
    elif isinstance(part, dict):
        for name, value in part.items():
            _walk(name, depth)
            _walk(value, depth - 1)
    elif isinstance(part, list):
        for value in part:
            _walk(value, depth - 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise ValueError("a number is too long")
    return int(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


class _StrictRequest(Request):
    async def json(self) -> Any:
        return read(await self.body())


class Route(APIRoute):
    """A route that reads its JSON strictly."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return the handler, which gets the strict request."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            answer: Response = await handle(
                _StrictRequest(request.scope, request.receive)
            )
            return answer

        return strict
