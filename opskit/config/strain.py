"""The settings of probes that strain a service: latency, load, resilience."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from opskit.config.section import Count, Duration, Section, SourceName
from opskit.config.stores import Size

MARK = "{marker}"


class LatencyProbeSettings(Section):
    """How the answers are measured that `[slo]` has objectives for."""

    path: str = Field(
        default="", description="the path that is asked; empty: the version's path"
    )
    key: str = Field(default="", description="name of the credential that it needs")
    requests: Count = Field(
        default=200,
        ge=100,
        le=10_000,
        description="how many: of 100 answers one may be slower than p99, of 200 two",
    )
    connections: Count = Field(
        default=4, ge=1, le=32, description="how many send requests at the same time"
    )
    gating: bool = Field(
        default=False,
        description="percentiles that miss their objective fail the whole; otherwise "
        "they are advice, because the network and the load of this host count too",
    )


class LoadRequestSettings(Section):
    """One kind of request among those of a load."""

    method: Literal["GET", "PATCH", "POST", "PUT"] = Field(
        default="GET", description="its method"
    )
    path: str = Field(description="its path")
    document: dict[str, Any] = Field(
        default={},
        description=f"the JSON object that it sends; `{MARK}` in a text of it becomes "
        "a mark, another one each time",
    )
    weight: Count = Field(
        default=1, ge=1, le=100, description="how often it comes, beside the others"
    )

    @property
    def is_marked(self) -> bool:
        """Whether what it creates can be found in events."""
        return MARK in json.dumps(self.document)


class LoadSettings(Section):
    """Many requests for a time, while subscribers listen: only where that is allowed.

    What it creates stays.
    """

    requests: list[LoadRequestSettings] = Field(
        default=[], description="what is sent, in turn; empty: nothing"
    )
    key: str = Field(
        default="",
        description="name of the credential that they need; its rate limit must allow "
        "the load",
    )
    duration: Duration = Field(
        default=timedelta(seconds=20),
        ge=timedelta(seconds=1),
        le=timedelta(hours=12),
        description="for how long requests are sent; minutes to hours for a soak test",
    )
    rate: Count = Field(
        default=20, ge=1, le=200, description="how many are due in each second"
    )
    spike: Count = Field(
        default=20, le=200, description="how many more are due at once, in a burst"
    )
    spike_every: Duration = Field(
        default=timedelta(seconds=5),
        ge=timedelta(seconds=1),
        description="the time between bursts",
    )
    streams: list[str] = Field(
        default=[], description="paths of event streams that tell of what is created"
    )
    sockets: list[str] = Field(
        default=[], description="paths of WebSockets that tell of it"
    )
    subscribe: dict[str, Any] = Field(
        default={}, description="a message that is sent over a WebSocket at first"
    )
    subscribers: Count = Field(
        default=3, ge=1, le=50, description="how many listen to each of them"
    )
    memory_metric: str = Field(
        default="process_resident_memory_bytes",
        description="the metric of the process's memory, at "
        "`smoke.observability.metrics`",
    )
    memory_growth: Size = Field(
        default=64 * 1024 * 1024,
        description="by how much it may grow from a quarter of the time to the end",
    )

    @model_validator(mode="after")
    def _heard_of(self) -> Self:
        listens = self.streams or self.sockets
        if listens and not any(each.is_marked for each in self.requests):
            raise ValueError(
                f"a request whose document holds {MARK} is needed: by it, the events "
                "of subscribers are recognised"
            )
        return self


class DependencySettings(Section):
    """Something that the service uses, and that may be stopped and started."""

    stop: list[str] = Field(
        min_length=1, description="a program, with arguments, that stops it"
    )
    start: list[str] = Field(
        min_length=1,
        description="one that starts it again, and returns; it runs in any case",
    )
    needed: bool = Field(
        default=False,
        description="without it the health report is 503, unhealthy, and requests may "
        "be refused with 503; otherwise it is 200, degraded, and all goes on",
    )


class ResilienceSettings(Section):
    """What is stopped and killed to see what becomes of the service.

    Only for a service that is not in production.
    """

    not_production: bool = Field(
        default=False,
        description="must be true where anything is stopped or killed: that the "
        "service and what it uses are nobody's production",
    )
    dependencies: dict[SourceName, DependencySettings] = Field(
        default={}, description="what the service uses, by name"
    )
    kill: list[str] = Field(
        default=[],
        description="a program, with arguments, that kills the process of the service",
    )
    start: list[str] = Field(
        default=[],
        description="one that starts it again, and returns; empty: a supervisor does",
    )
    key: str = Field(default="", description="name of the credential that writes")
    write: str = Field(
        default="", description="a route that creates an object by POST; it stays"
    )
    document: dict[str, Any] = Field(default={}, description="that object")
    id_field: str = Field(default="id", description="field of the answer with its id")
    read: str = Field(
        default="", description="its path, for instance `/api/tasks/{id}`"
    )
    live: str = Field(
        default="", description="a path that is answered with 200 in any case"
    )
    notice: Duration = Field(
        default=timedelta(seconds=30),
        description="within which the health report says what is away",
    )
    recovery: Duration = Field(
        default=timedelta(seconds=30),
        description="within which it is healthy when all is back",
    )
    back_within: Duration = Field(
        default=timedelta(seconds=5),
        description="within which a killed service is healthy again",
    )
    command_timeout: Duration = Field(
        default=timedelta(minutes=1), description="a program that takes longer is ended"
    )

    @model_validator(mode="after")
    def _harmless(self) -> Self:
        if not self.dependencies and not self.kill:
            return self
        if not self.not_production:
            raise ValueError(
                "this stops and kills what it names: set not_production = true if the "
                "service is nobody's production, or leave the section out"
            )
        if not self.write or "{id}" not in self.read:
            raise ValueError("write and read are needed, and read must hold {id}")
        return self
