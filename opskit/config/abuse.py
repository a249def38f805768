"""The settings of probes that send too much, too slowly, or what is malformed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field

from opskit.config.section import Count, Duration, Section
from opskit.config.stores import Size

_MINUTE = timedelta(minutes=1)


class FramesSettings(Section):
    """A WebSocket that malformed frames and messages are sent to."""

    path: str = Field(default="", description="its path; empty: not asked")
    key: str = Field(default="", description="the key that may open it")
    ping: dict[str, Any] = Field(
        default={"type": "ping"}, description="a message that is answered"
    )
    pong: dict[str, Any] = Field(
        default={"type": "pong"}, description="fields of the answer to it"
    )
    error: dict[str, Any] = Field(
        default={"type": "error"}, description="fields of every message of an error"
    )


class OpenApiSettings(Section):
    """The description of a service that requests are made up from."""

    path: str = Field(default="", description="path of the document; empty: not asked")
    key: str = Field(default="", description="the key that the requests carry")
    time: Duration = Field(
        default=timedelta(seconds=20),
        ge=timedelta(seconds=5),
        le=timedelta(minutes=10),
        description="after which schemathesis is ended",
    )


class InputSettings(Section):
    """Where malformed requests are sent; they create nothing unless one is accepted."""

    path: str = Field(
        default="",
        description="a route that takes a JSON object by POST; empty: no body is sent",
    )
    key: str = Field(default="", description="the key that may use these routes")
    field: str = Field(
        default="title", description="a field of that object which must be text"
    )
    text_max: Count = Field(
        default=300_000,
        le=4_000_000,
        description="how many characters it may have; one more is sent",
    )
    invalid: list[str] = Field(
        default=[],
        description="paths with a query or an id that is invalid, each to be refused",
    )
    websocket: FramesSettings = FramesSettings()
    openapi: OpenApiSettings = OpenApiSettings()


class LimitsSettings(Section):
    """Requests that are too large, too many or too slow; only what is named is sent."""

    key: str = Field(default="", description="the key that may use these routes")
    body_path: str = Field(
        default="", description="a route that takes a body by POST; empty: not asked"
    )
    body_max: Size = Field(default=0, description="the largest body that it takes")
    body_time: Duration = Field(
        default=timedelta(0),
        le=_MINUTE,
        description="within which a body that trickles in is refused; 0s: not asked",
    )
    slow_clients: Count = Field(
        default=8,
        le=64,
        description="how many slow clients must not keep others from an answer; 0: "
        "not asked",
    )
    busy_path: str = Field(
        default="",
        description="a route that takes some seconds by GET; empty: not asked",
    )
    busy_clients: Count = Field(
        default=0,
        le=300,
        description="how many clients of it at once are too many for all instances",
    )
    timeout_path: str = Field(
        default="",
        description="a route that takes longer by GET than the service allows; empty: "
        "not asked",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=30),
        le=timedelta(minutes=5),
        description="within which the service gives that up",
    )


class RateLimitSettings(Section):
    """The limit of requests, which a burst of them exceeds."""

    path: str = Field(
        default="", description="a route by GET that counts; empty: not asked"
    )
    key: str = Field(
        default="", description="the key of the burst, which nobody else uses"
    )
    other_key: str = Field(
        default="", description="the key of another client, which the burst spares"
    )
    limit: Count = Field(
        default=0, le=1000, description="how many requests the key has in a window"
    )
    window: Duration = Field(
        default=_MINUTE, ge=timedelta(seconds=1), description="how long a window is"
    )
    prefix: str = Field(
        default="X-RateLimit-",
        description="what the headers Limit, Remaining and Reset begin with",
    )
