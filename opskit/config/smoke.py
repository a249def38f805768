"""The settings of probes: the service, its keys, and what each family asks."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from opskit.config.probes import (
    CorsSettings,
    HeadersSettings,
    HealthSettings,
    LatencyProbeSettings,
    ObservabilitySettings,
    TlsSettings,
)
from opskit.config.section import Count, Duration, Section


class Profile(StrEnum):
    """How much is asked, from least to most; each includes the ones before it."""

    MINIMAL = "minimal"
    STANDARD = "standard"
    STRICT = "strict"

    @property
    def included(self) -> tuple[Profile, ...]:
        """The profiles whose probes are asked."""
        order = tuple(Profile)
        return order[: order.index(self) + 1]


class VersionSettings(Section):
    """Where the service names its version."""

    path: str = Field(default="/health", description="path of a JSON answer")
    field: str = Field(
        default="version", description="its field, with dots between levels"
    )


class KeySettings(Section):
    """A credential of the service, by the name of its user."""

    file: Path = Field(description="a file of mode 0600 that holds the key or token")
    header: str = Field(default="X-API-Key", description="the header that carries it")
    prefix: str = Field(
        default="", description="what stands before it, for instance `Bearer `"
    )


class SmokeSettings(Section):
    """The service that is probed, and how."""

    url: str = Field(default="", description="address of the service")
    profile: Profile = Field(
        default=Profile.STANDARD, description="`minimal`, `standard` or `strict`"
    )
    version: VersionSettings = VersionSettings()
    identity: str = Field(
        default="",
        description="a header that every answer of the service has: an answer without "
        "it is a balancer's",
    )
    deadline: Duration = Field(
        default=timedelta(minutes=2),
        description="until when all probes are tried again",
    )
    connections: Count = Field(
        default=5,
        description="on how many new connections in a row the service must name the "
        "expected version",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=10), description="how long one answer may take"
    )
    keys: dict[str, KeySettings] = Field(
        default={}, description="credentials, by a name that the probes use"
    )
    cors: CorsSettings = CorsSettings()
    headers: HeadersSettings = HeadersSettings()
    health: HealthSettings = HealthSettings()
    latency: LatencyProbeSettings = LatencyProbeSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    tls: TlsSettings = TlsSettings()
