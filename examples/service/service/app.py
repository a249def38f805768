"""App: the routes and the layers around them, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from service import audit, errors, health, hooks, incoming, streams, tasks, uploads
from service.errors import Errors
from service.gate import Gate
from service.limits import Limits
from service.requests import Requests
from service.settings import Settings
from service.state import State

_EXPOSED = ["Retry-After", "X-Request-ID"]
_EXPOSED += [f"X-RateLimit-{each}" for each in ("Limit", "Remaining", "Reset")]


class _Origins(CORSMiddleware):
    """Refuses in the form of every error."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks what a page may send."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        return errors.answer(403, bytes(answer.body).decode())


def create(settings: Settings) -> FastAPI:
    """Return the application, with its state in `app.state.service`."""
    state = State.of(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with state.running():
            yield

    app = FastAPI(
        title="service",
        version=settings.version,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={"default": {"model": errors.ErrorAnswer}},
        redirect_slashes=False,
    )
    app.state.service = state
    for module in (tasks, streams, hooks, incoming, uploads, audit, health):
        app.include_router(module.router)
    app.add_api_route("/metrics", state.metrics.show, include_in_schema=False)
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, errors.handler)
    _surround(app, state)
    return app


def _surround(app: FastAPI, state: State) -> None:
    """Add the layers, the innermost first."""
    settings = state.settings
    app.add_middleware(Gate, keys=state.keys, tokens=state.tokens, rates=state.rates)
    app.add_middleware(
        Limits, settings=settings, larger={"/api/imports": settings.import_bytes_max}
    )
    app.add_middleware(Errors)
    app.add_middleware(
        _Origins,
        allow_origins=settings.allowed_origins,
        allow_methods=["GET", "PATCH", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
        expose_headers=_EXPOSED,
    )
    app.add_middleware(Requests, metrics=state.metrics, https=settings.https)
