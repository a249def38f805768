"""The settings of webhooks that are probed: how they are signed, sent and taken."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from opskit.config.section import Duration, Section


class SignatureSettings(Section):
    """How webhooks are signed: an HMAC over the raw body."""

    secret_file: Path | None = Field(
        default=None, description="a file of mode 0600 that holds the secret"
    )
    header: str = Field(
        default="X-Webhook-Signature", description="the header of the signature"
    )
    form: Annotated[str, Field(pattern=r"\{signature\}")] = Field(
        default="v1={signature}", description="its value; it may hold `{timestamp}` too"
    )
    signed: Annotated[str, Field(pattern=r"\{body\}")] = Field(
        default="{timestamp}.{body}",
        description="what is signed, of `{id}`, `{timestamp}` and `{body}`",
    )
    algorithm: Literal["sha1", "sha256", "sha512"] = Field(
        default="sha256", description="the hash of the HMAC"
    )
    encoding: Literal["hex", "base64"] = Field(
        default="hex", description="how the signature is written"
    )
    id_header: str = Field(
        default="X-Webhook-ID", description="the header of the delivery's id"
    )
    timestamp_header: str = Field(
        default="X-Webhook-Timestamp",
        description="the header of the time, in seconds since 1970; empty: none",
    )
    tolerance: Duration = Field(
        default=timedelta(minutes=5), description="how old a delivery may be"
    )


class OutgoingSettings(SignatureSettings):
    """A webhook of the service, registered there for the address listened on."""

    path: str = Field(
        default="",
        description="the route of an action by POST that causes a delivery; empty: "
        "not asked",
    )
    key: str = Field(default="", description="the key that may do it")
    document: dict[str, Any] = Field(
        default={}, description="the body of that request; what it creates stays"
    )
    listen: Annotated[str, Field(pattern=r"^.+:\d{1,5}$")] = Field(
        default="127.0.0.1:8322", description="the address that is listened on"
    )
    wait: Duration = Field(
        default=timedelta(seconds=10),
        le=timedelta(minutes=1),
        description="how long the delivery may take",
    )
    request_id: str = Field(
        default="X-Request-ID",
        description="the header that names the request which caused a delivery",
    )


class IncomingSettings(SignatureSettings):
    """A route of the service that takes signed webhooks."""

    path: str = Field(default="", description="the route; empty: not asked")
    document: dict[str, Any] = Field(
        default={},
        description="the body of a delivery, in which `{id}` becomes its id; what it "
        "causes stays",
    )
    unknown: dict[str, Any] = Field(
        default={}, description="a body of a type that is refused; empty: not asked"
    )
    other: dict[str, Any] = Field(
        default={},
        description="another body, which is refused under an id that was used; empty: "
        "not asked",
    )
    accepted: dict[str, Any] = Field(
        default={"status": "accepted"}, description="fields of the answer to a new one"
    )
    duplicate: dict[str, Any] = Field(
        default={"status": "duplicate"},
        description="fields of the answer to one that was processed before",
    )
    record: Path | None = Field(
        default=None,
        description="a file that keeps the id of the last delivery: the next run sends "
        "it again, after a restart too",
    )


class WebhooksSettings(Section):
    """Webhooks that the service sends and takes."""

    outgoing: OutgoingSettings = OutgoingSettings()
    incoming: IncomingSettings = IncomingSettings()
