"""The settings of the families of probes: one class for each family, by its name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from opskit.config.section import Count, Duration, Section


class CorsSettings(Section):
    """What other origins may read."""

    path: str = Field(default="", description="the path that is asked")
    key: str = Field(default="", description="name of the credential that it needs")
    origins: list[str] = Field(
        default=[],
        description="the origins that may read it, for instance `https://a.b`",
    )
    method: str = Field(
        default="GET", description="the method that a preflight request asks for"
    )
    headers: list[str] = Field(
        default=["Content-Type"],
        description="the headers that a preflight request asks for",
    )
    private_network: bool = Field(
        default=False, description="sites on public networks may ask a private one"
    )


class AnswerSettings(Section):
    """An answer whose headers are examined, and the request for it."""

    method: Literal["GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] = Field(
        default="GET", description="its method"
    )
    path: str = Field(description="its path")
    key: str = Field(default="", description="name of the credential that it is sent")
    body: str = Field(default="", description="the JSON text that it is sent")
    status: Count = Field(default=0, description="status of the answer; 0 for any")


class HeadersSettings(Section):
    """The policy for headers and cookies."""

    answers: list[AnswerSettings] = Field(
        default=[],
        description="answers to examine, for instance with 401 and 422, besides those "
        "of the version's path, of a POST there, and of a path that does not exist",
    )
    behind_tls: bool = Field(
        default=False,
        description="expect what belongs to https (HSTS, Secure cookies) although the "
        "address is http, because a proxy ends TLS",
    )
    hsts_max_age: Duration = Field(
        default=timedelta(days=180), description="least `max-age` of HSTS"
    )
    hsts_subdomains: bool = Field(
        default=False, description="HSTS must have `includeSubDomains`"
    )
    csp_directives: list[str] = Field(
        default=["script-src", "object-src", "base-uri", "frame-ancestors"],
        description="directives of the Content-Security-Policy that must be there "
        "(`default-src` stands for those that end in `-src`), and safe",
    )
    frame_options: list[str] = Field(
        default=["DENY", "SAMEORIGIN"], description="allowed values of X-Frame-Options"
    )
    referrer_policies: list[str] = Field(
        default=[
            "no-referrer",
            "same-origin",
            "strict-origin",
            "strict-origin-when-cross-origin",
        ],
        description="allowed values of Referrer-Policy",
    )
    script_cookies: list[str] = Field(
        default=[], description="cookies that scripts read, which need no HttpOnly"
    )
    same_site: list[str] = Field(
        default=["Lax", "Strict"], description="allowed values of SameSite"
    )


class HealthSettings(Section):
    """What the service says of itself."""

    path: str = Field(
        default="", description="path of the health report, a JSON object"
    )
    key: str = Field(default="", description="name of the credential that it needs")
    uptime_field: str = Field(
        default="uptime_seconds", description="its field with the uptime in seconds"
    )
    services_field: str = Field(
        default="services",
        description="its field with the state of each service, or with an object whose "
        "`status` is the state",
    )
    services: list[str] = Field(
        default=[], description="services whose state must be there"
    )
    healthy: list[str] = Field(
        default=["healthy", "ok"], description="words for: all is well"
    )
    degraded: list[str] = Field(
        default=["degraded"], description="words for: it works, but not everything does"
    )
    unhealthy: list[str] = Field(
        default=["unhealthy"],
        description="words for: it does not work; answered with 503",
    )
    public: list[str] = Field(
        default=[],
        description="paths of readiness and liveness, which answer without a key",
    )
    public_fields: list[str] = Field(
        default=["status"], description="the only fields that those answers may have"
    )
    public_words: list[str] = Field(
        default=["ready", "ok"],
        description="the only texts that those answers may hold when all is well",
    )


class ObservabilitySettings(Section):
    """Metrics, request ids and logs."""

    metrics: str = Field(default="", description="path of the metrics")
    metrics_key: str = Field(
        default="", description="name of the credential that the metrics need"
    )
    counter: str = Field(
        default="",
        description="the counter, histogram or summary of requests; without it, all "
        "with `request` in their names",
    )
    path: str = Field(
        default="",
        description="path of requests that are counted and logged; without "
        "it, the version's path",
    )
    key: str = Field(default="", description="name of the credential that it needs")
    request_id: str = Field(
        default="", description="the header with the id of the request"
    )
    log_file: Path | None = Field(
        default=None, description="the service's log, where this host has it"
    )
    log_command: list[str] = Field(
        default=[], description="a program, with arguments, that prints the log's end"
    )


class TlsSettings(Section):
    """The certificate and the protocol, where the address is https."""

    ca_file: Path | None = Field(
        default=None,
        description="the authorities that are trusted, instead of this host's",
    )
    names: list[str] = Field(
        default=[],
        description="names that the certificate must hold besides that of the address",
    )
    valid_for: Duration = Field(
        default=timedelta(days=14),
        description="how long the certificate must still be valid",
    )
