"""The service: accounts, and the tasks that belong to them."""

from __future__ import annotations

from typing import Any

import urllib3

from tests.service import Service


def ask(
    service: Service,
    method: str,
    path: str,
    key: str = "",
    document: object = None,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> urllib3.BaseHTTPResponse:
    """Send one request with the key of an account."""
    sent = ({"X-API-Key": service.keys[key]} if key else {}) | (headers or {})
    options: dict[str, Any] = {"json": document} if document is not None else {}
    if body is not None:
        options = {"body": body}
        sent |= {"Content-Type": "application/json"}
    return urllib3.request(
        method, service.url + path, headers=sent, retries=False, timeout=60, **options
    )


def test_a_task_is_made_and_read_by_its_owner(service: Service) -> None:
    """What was made is what is read."""
    made = ask(service, "POST", "/api/tasks", "writer", {"title": "water the plants"})
    read = ask(service, "GET", f"/api/tasks/{made.json()['id']}", "writer")

    assert (made.status, read.status) == (201, 200)
    assert read.json() == made.json()
    assert read.json()["title"] == "water the plants"


def test_health_names_the_version_and_every_part(service: Service) -> None:
    """All parts are healthy when nothing is missing."""
    health = ask(service, "GET", "/health").json()

    assert health["status"] == "healthy", health
    assert health["version"] == "1.0.0"
    assert set(health["services"]) == {"database", "redis", "disk", "memory"}
