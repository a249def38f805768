"""The settings of the probes of access: who may do what, and who sees what."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from opskit.config.section import Count, Section


class RequestSettings(Section):
    """A request that the probes send."""

    method: Literal["GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] = Field(
        default="GET", description="its method"
    )
    path: str = Field(
        default="",
        description="its path; `{task}` in it is the id of the resource `task`",
    )
    key: str = Field(default="", description="name of the credential that it is sent")
    body: dict[str, Any] = Field(default={}, description="the JSON that it is sent")
    status: Count = Field(
        default=0, description="status of the right answer; 0 for any from 200 to 299"
    )

    @property
    def document(self) -> dict[str, Any] | None:
        """The body, if its method has one."""
        return self.body if self.method in ("PATCH", "POST", "PUT") else None

    def accepts(self, status: int) -> bool:
        """Say whether a status is that of the right answer."""
        return status == self.status if self.status else 200 <= status <= 299


class ListSettings(Section):
    """A list that the service hands out in pages."""

    path: str = Field(description="its path")
    key: str = Field(default="", description="name of the credential that it is sent")
    items: str = Field(default="items", description="the field with the items")
    id: str = Field(default="id", description="the field of an item that names it")
    next: str = Field(
        default="next",
        description="the field with the cursor or the address of the next page; "
        "null or empty on the last one",
    )
    total: str = Field(
        default="",
        description="the field with the number of all items; empty: there is none",
    )
    limit: str = Field(
        default="",
        description="the field with the size of the page that was answered with; "
        "empty: there is none",
    )
    cursor_parameter: str = Field(
        default="after", description="the parameter that takes the cursor"
    )
    limit_parameter: str = Field(
        default="limit", description="the parameter that takes the size of a page"
    )
    default_size: Count = Field(
        default=20, ge=1, description="size of a page when none is asked for"
    )
    size_max: Count = Field(default=100, ge=1, description="largest size of a page")
    pages_max: Count = Field(
        default=100, ge=1, description="how many pages of it are read"
    )
    fill: dict[str, Any] = Field(
        default={},
        description="JSON that is sent to the list by POST until it holds more items "
        "than a page by default; empty: nothing is made",
    )


class ResourceSettings(Section):
    """What belongs to one user.

    It is looked up in the list, and made once with POST if the list has none like it.
    """

    path: str = Field(
        description="its path, for instance `/api/tasks/{task}` for the resource `task`"
    )
    owner: str = Field(description="name of the owner's credential")
    listed_in: str = Field(default="", description="name of the list that holds it")
    body: dict[str, Any] = Field(
        default={},
        description="JSON that is sent to the list by POST to make it, and fields by "
        "which it is looked up",
    )
    id: str = Field(default="", description="its id, if it is never made")
    change: dict[str, Any] = Field(
        default={},
        description="JSON that is sent by PATCH as another user, who must be refused; "
        "best what is there already; empty: it is not tried",
    )

    @model_validator(mode="after")
    def _can_be_looked_up(self) -> ResourceSettings:
        if not self.id and not (self.listed_in and self.body):
            raise ValueError("needs id, or listed_in and body")
        return self


class StreamSettings(Section):
    """An event stream (SSE)."""

    path: str = Field(description="its path")
    key: str = Field(description="name of the credential that it needs")
    headers: dict[str, str] = Field(
        default={}, description='further headers, for instance `Last-Event-ID = "0"`'
    )
    trigger: RequestSettings = Field(
        default=RequestSettings(),
        description="a request that causes an event; without a path, one must come "
        "by itself",
    )


class WebSocketSettings(Section):
    """A WebSocket with JSON messages."""

    path: str = Field(description="its path")
    key: str = Field(description="name of the credential that it needs")
    parameter: str = Field(
        default="",
        description="the parameter in the address that carries the credential, for "
        "browsers, instead of its header",
    )
    send: dict[str, Any] = Field(description="a message that is sent")
    expect: dict[str, Any] = Field(
        description="fields that a message of the service must then have"
    )


class TokenSettings(Section):
    """JSON Web Tokens that the probes make themselves, right and wrong ones."""

    path: str = Field(
        default="", description="a path that takes tokens; empty: none are tried"
    )
    key_file: Path = Field(
        default=Path(),
        description="a file of mode 0600 with the secret, or the private key in PEM, "
        "that tokens are signed with",
    )
    algorithm: str = Field(default="HS256", description="the algorithm of signatures")
    header: str = Field(default="Authorization", description="the header for tokens")
    prefix: str = Field(default="Bearer ", description="what stands before a token")
    claims: dict[str, Any] = Field(
        default={},
        description="claims of a right token, for instance "
        '`{ sub = "smoke", aud = "shop", iss = "shop" }`; `exp` is added',
    )


class AuthenticationSettings(Section):
    """Who gets in."""

    routes: list[RequestSettings] = Field(
        default=[], description="routes that need the credential which they name"
    )
    bypass: list[str] = Field(
        default=[], description="paths that are answered without a credential"
    )
    wrong_header: str = Field(
        default="X-Opskit-Key",
        description="a header that the service takes no credential from",
    )
    streams: list[StreamSettings] = Field(default=[], description="event streams")
    websockets: list[WebSocketSettings] = Field(default=[], description="WebSockets")
    token: TokenSettings = TokenSettings()


class DiagnosticsSettings(Section):
    """Diagnostics, for those who have the permission."""

    path: str = Field(default="", description="its path; empty: the service has none")
    enabled: bool = Field(
        default=False, description="whether they are enabled; if not, they are 404"
    )
    permitted: str = Field(
        default="", description="name of the credential that may read them"
    )
    refused: str = Field(
        default="", description="name of a credential that may not read them"
    )


class AuthorisationSettings(Section):
    """Who may do what; what belongs to whom is in `[smoke.resources.NAME]`."""

    others: list[str] = Field(
        default=[],
        description="credentials of users who must not see the resources of others",
    )
    reader: str = Field(
        default="", description="name of a credential that may only read"
    )
    reads: list[str] = Field(default=[], description="paths that it may read")
    writes: list[RequestSettings] = Field(
        default=[],
        description="writes that it may not do, and that the credential which they "
        "name may; best with a body that is refused, so that nothing is written",
    )
    forbidden: list[RequestSettings] = Field(
        default=[],
        description="requests that the credential which they name may not send: the "
        "answer is 403",
    )
    diagnostics: DiagnosticsSettings = DiagnosticsSettings()


class AuditSettings(Section):
    """The audit trail."""

    trail: str = Field(
        default="",
        description="name of the list that it is, with an administrator's key; "
        "empty: the service has none",
    )
    others: list[str] = Field(
        default=[], description="names of credentials that may not read it"
    )
    filters: list[str] = Field(
        default=["actor", "action"],
        description="parameters that filter by the field of the same name",
    )
    time: str = Field(default="time", description="the field with the time of an entry")
    since_parameter: str = Field(
        default="since", description="the parameter that filters by time"
    )
    action: RequestSettings = Field(
        default=RequestSettings(), description="a request that must appear in it"
    )
    entry: dict[str, Any] = Field(
        default={},
        description="fields that its entry must have, for instance "
        '`{ actor = "smoke", action = "task.changed" }`',
    )
    request_id: str = Field(
        default="request_id",
        description="the field with the id of the request, which its entry must have "
        "too; empty: there is none",
    )
    request_id_header: str = Field(
        default="X-Request-ID", description="the header with the id of a request"
    )


class PaginationSettings(Section):
    """Lists in pages, which are in `[smoke.lists.NAME]`."""

    lists: list[str] = Field(
        default=[], description="names of the lists whose pages are examined"
    )
