"""A small service in memory that answers right, or wrong in the ways that a test names."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

KEYS = {
    "writer": "smoke_writer_0123456789abcdef",
    "other": "smoke_other_fedcba9876543210",
    "reader": "smoke_reader_00112233445566",
    "admin": "smoke_admin_665544332211000",
}
JWT_SECRET = "a-secret-of-more-than-thirty-two-bytes"
CLAIMS = {"sub": "writer", "aud": "shop", "iss": "shop-login"}
DEFAULT_SIZE, SIZE_MAX = 8, 20


class Refused(Exception):
    """A request is answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Service:
    """Its state, and what is wrong with it."""

    defects: frozenset[str] = frozenset()
    diagnostics: bool = True
    version: str = "1"
    tasks: list[dict[str, Any]] = field(default_factory=list)
    trail: list[dict[str, Any]] = field(default_factory=list)
    listeners: list[tuple[str, asyncio.Queue[str]]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def has(self, *defects: str) -> bool:
        """Say whether one of these is wrong."""
        return not self.defects.isdisjoint(defects)

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/api/tasks", self.list_tasks),
                Route("/api/tasks", self.add_task, methods=["POST"]),
                Route("/api/tasks/{id:int}", self.read_task),
                Route("/api/tasks/{id:int}", self.change_task, methods=["PATCH"]),
                Route("/api/audit", self.audit),
                Route("/api/events", self.events),
                Route("/api/forgotten", self.forgotten),
                Route("/diagnostics", self.show_diagnostics),
                WebSocketRoute("/api/ws", self.websocket),
            ],
            exception_handlers={Refused: _refusal},
        )

    def user(self, connection: HTTPConnection, *roles: str) -> str:
        """Return who asks.

        Raises:
            Refused: nobody who is known, or none of these roles.
        """
        user = self._by_key(connection) or self._by_token(connection)
        if not user:
            raise Refused(403 if self.has("403-for-401") else 401)
        is_trusted = self.has("admins-only-in-name") and roles == ("admin",)
        if roles and user not in roles and not self.has("no-roles") and not is_trusted:
            raise Refused(403)
        if self.has("nobody-gets-in") or (
            self.has("readers-kept-out") and user == "reader"
        ):
            raise Refused(403)
        return user

    def _by_key(self, connection: HTTPConnection) -> str:
        key = connection.headers.get("x-api-key")
        if key is None and self.has("any-header"):
            key = next(
                (e for e in connection.headers.values() if e in KEYS.values()), None
            )
        if key is None:
            key = connection.query_params.get("token")
        if key == "" and self.has("empty-key"):
            return "writer"
        if key and self.has("any-key"):
            return "writer"
        for user, right in KEYS.items():
            if key == right:
                self.known.add(right[:12])
                return user
            if key and self.has("prefix-only") and key[:12] == right[:12]:
                return user
            if key and self.has("prefix-cached") and key[:12] in self.known:
                return user
            if key and self.has("cut-key") and right.startswith(key):
                return user
        return ""

    def _by_token(self, connection: HTTPConnection) -> str:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.has("no-tokens"):
            return ""
        try:
            if (
                self.has("unsigned")
                and jwt.get_unverified_header(token)["alg"] == "none"
            ):
                return "writer"
            claims = jwt.decode(
                token,
                JWT_SECRET,
                algorithms=["HS256"],
                audience="shop",
                issuer="shop-login",
                options={
                    "require": [
                        each
                        for each in ("exp", "aud", "iss")
                        if not self.has(f"{each}-not-required")
                    ],
                    "verify_exp": not self.has("exp-unverified"),
                    "verify_nbf": not self.has("nbf-unverified"),
                    "verify_aud": not self.has("aud-unverified"),
                    "verify_iss": not self.has("iss-unverified"),
                    "verify_signature": not self.has("signature-unverified"),
                },
            )
        except jwt.InvalidTokenError:
            return ""
        return str(claims["sub"])

    async def health(self, request: Request) -> Response:
        """Answer without a key."""
        if self.has("bypass-closed"):
            self.user(request)
        if self.has("bypass-checks-keys") and "x-api-key" in request.headers:
            self.user(request)
        return JSONResponse({"status": "healthy", "version": self.version})

    async def forgotten(self, request: Request) -> Response:
        """Answer those with a key."""
        if not self.has("open-route"):
            self.user(request)
        return JSONResponse({})

    async def show_diagnostics(self, request: Request) -> Response:
        """Answer an administrator, if it is enabled."""
        if not self.diagnostics and not self.has("diagnostics-enabled"):
            if self.has("diagnostics-403"):
                raise Refused(403)
            raise Refused(404)
        if not self.has("diagnostics-open"):
            self.user(
                request, "admin", *(["writer"] if self.has("diagnostics-all") else [])
            )
        return JSONResponse({"threads": 7})

    async def list_tasks(self, request: Request) -> Response:
        """Answer a page of the user's tasks."""
        user = self.user(request)
        mine = [e for e in self.tasks if e["owner"] == user or self.has("list-of-all")]
        return self._page(request.query_params, mine)

    def _page(self, query: Mapping[str, str], found: list[dict[str, Any]]) -> Response:
        limit = _whole(
            query.get("limit", str(DEFAULT_SIZE)), least=1, defect=self.has("zero")
        )
        after = _whole(query.get("after", "0"), least=0, defect=False)
        if after > 2**63 and self.has("huge-cursor"):
            raise Refused(500)
        if "after" in query and after > 2**63 and self.has("cursor-begins-again"):
            after = 0
        if "limit" not in query and self.has("no-default"):
            limit = len(found)
        if self.has("limit-ignored"):
            limit = DEFAULT_SIZE
        if self.has("cap-refused") and limit > SIZE_MAX:
            raise Refused(422)
        asked = limit
        if not self.has("no-cap"):
            limit = min(limit, SIZE_MAX)
        rest = [e for e in found if e["id"] > after]
        if self.has("skips"):
            rest = [e for e in found if e["id"] > after + bool(after)]
        if self.has("overlaps"):
            rest = [e for e in found if e["id"] > max(0, after - 1)]
            limit += bool(after)
        items, more = rest[:limit], rest[limit:]
        following = items[-1]["id"] if items and more else None
        if self.has("next-on-last") and items:
            following = items[-1]["id"]
        if self.has("reversed-by-size") and limit < DEFAULT_SIZE:
            items = items[::-1]
        if self.has("no-next"):
            following = None
        return JSONResponse(
            {
                "items": items,
                "total": self._total(items, found),
                "limit": asked if self.has("limit-not-told") else limit,
                "next": following,
            }
        )

    def _total(self, items: list[dict[str, Any]], found: list[dict[str, Any]]) -> int:
        if self.has("total-of-all"):
            return len(self.tasks)
        return len(items if self.has("total-of-page") else found)

    async def add_task(self, request: Request) -> Response:
        """Make a task."""
        user = self.user(request, "writer", "other", "admin")
        body = await request.json()
        if "title" not in body:
            raise Refused(422)
        task = {"id": next(self.numbers), "owner": user, **body}
        self.tasks.append(task)
        self._note(request, user, "task.created")
        return JSONResponse(task, 201)

    def _own(self, request: Request, defect: str) -> dict[str, Any]:
        user = self.user(request)
        for task in self.tasks:
            is_seen = task["owner"] == user or self.has(defect)
            if is_seen and task["id"] == request.path_params["id"]:
                return task
        raise Refused(404)

    async def read_task(self, request: Request) -> Response:
        """Answer a task of the user."""
        return JSONResponse(self._own(request, "read-any"))

    async def change_task(self, request: Request) -> Response:
        """Change a task of the user."""
        user = self.user(request, "writer", "other")
        task = self._own(request, "change-any")
        task |= await request.json()
        self._note(request, user, "task.changed")
        for listener, queue in self.listeners:
            if listener == user or self.has("events-for-all"):
                queue.put_nowait(f"task {task['id']}")
        return JSONResponse(task)

    def _note(self, request: Request, user: str, action: str) -> None:
        if self.has("no-audit") or (self.has("changes-not-audited") and "ch" in action):
            return
        self.trail.append(
            {
                "id": len(self.trail) + 1,
                "time": datetime.now(UTC).isoformat(),
                "actor": "somebody" if self.has("no-actor") else user,
                "action": action,
                "request_id": request.headers.get("x-request-id", ""),
            }
        )

    async def audit(self, request: Request) -> Response:
        """Answer the audit trail."""
        if not self.has("audit-open"):
            self.user(request, "admin", *(["writer"] if self.has("audit-all") else []))
        query, found = request.query_params, list(self.trail)
        for name in ("actor", "action"):
            if name in query and not self.has(f"{name}-ignored"):
                found = [e for e in found if e[name] == query[name]]
        if self.has("filter-empty") and "actor" in query:
            found = []
        if "since" in query and not self.has("since-ignored"):
            since = datetime.fromisoformat(query["since"])
            late = [e for e in found if datetime.fromisoformat(e["time"]) >= since]
            found = (
                [e for e in found if e not in late]
                if self.has("since-reversed")
                else late
            )
        return self._page(query, found)

    async def events(self, request: Request) -> Response:
        """Stream events of the user's tasks."""
        user = "writer" if self.has("stream-open") else self.user(request)
        queue: asyncio.Queue[str] = asyncio.Queue()
        if not self.has("stream-silent"):
            self.listeners.append((user, queue))

        async def lines() -> AsyncIterator[str]:
            yield ": welcome\n\n"
            while not self.has("stream-ends"):
                yield f"data: {await queue.get()}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def websocket(self, channel: WebSocket) -> None:
        """Answer messages."""
        if not self.has("websocket-open"):
            try:
                self.user(channel)
            except Refused:
                if self.has("websocket-4401", "websocket-waits"):
                    await channel.accept()
                if not self.has("websocket-waits"):
                    await channel.close(4401)
                    return
        if channel.client_state.name == "CONNECTING":
            await channel.accept()
        try:
            while True:
                message = await channel.receive_json()
                if not self.has("websocket-silent", "websocket-waits"):
                    await channel.send_json({"type": "welcome"})
                    wrong = self.has("websocket-wrong")
                    await channel.send_json(
                        {**message, "type": "?" if wrong else "pong"}
                    )
        except WebSocketDisconnect:
            return


def _whole(text: str, *, least: int, defect: bool) -> int:
    try:
        number = int(text)
    except ValueError:
        raise Refused(500 if defect else 422) from None
    if number < least:
        raise Refused(500 if defect else 422)
    return number


async def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.status}, error.status)
