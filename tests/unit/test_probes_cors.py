"""The probes of CORS: a right answer passes, and each wrong one fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from opskit.probes.cors import look_alikes
from tests.unit.probed import Respond, asked

SITE = "https://app.shop.example"
OTHER_SITE = "http://localhost:3000"
SETTINGS: dict[str, Any] = {
    "cors": {"path": "/api", "origins": [SITE, OTHER_SITE], "method": "PATCH"}
}
NAMES = (
    "cors.listed-origin",
    "cors.look-alike-origin",
    "cors.preflight",
    "cors.other-origin",
    "cors.credentials",
    "cors.private-network",
)


def _listed(origin: str) -> bool:
    return origin in (SITE, OTHER_SITE)


def _service(
    allows: Callable[[str], bool] = _listed,
    *,
    echo: str = "",
    vary: str = "Accept, Origin",
    preflight: int = 204,
    allows_preflight: Callable[[str], bool] | None = None,
    methods: str = "GET, PATCH",
    headers: str = "content-type",
    private: bool = False,
    credentials: str = "true",
) -> Respond:
    def respond(request: Request) -> Response:
        origin = request.headers.get("Origin", "")
        is_preflight = request.method == "OPTIONS"
        allowed = (allows_preflight or allows) if is_preflight else allows
        found = {"Vary": vary, "Access-Control-Allow-Credentials": credentials}
        if allowed(origin):
            found["Access-Control-Allow-Origin"] = echo or origin
        if is_preflight:
            found["Access-Control-Allow-Methods"] = methods
            found["Access-Control-Allow-Headers"] = headers
        if private:
            found["Access-Control-Allow-Private-Network"] = "true"
        status = preflight if is_preflight else 200
        return PlainTextResponse("", status, found)

    return respond


@pytest.mark.parametrize("name", NAMES)
def test_a_right_answer_passes(name: str) -> None:
    check = asked(_service(), name, **SETTINGS)

    assert check.passed, check


@pytest.mark.parametrize(
    "service",
    [
        _service(lambda _origin: False),
        _service(lambda origin: origin == SITE),
        _service(echo="*"),
        _service(echo=SITE),
        _service(vary="Accept"),
    ],
    ids=["none", "one missing", "everybody", "another one's", "no Vary"],
)
def test_a_listed_origin_that_is_not_echoed_fails(service: Respond) -> None:
    check = asked(service, "cors.listed-origin", **SETTINGS)

    assert check.passed is False


@pytest.mark.parametrize(
    "service",
    [_service(lambda _origin: True), _service(lambda _origin: True, echo="*")],
    ids=["every origin echoed", "everybody"],
)
def test_a_stranger_that_is_allowed_fails(service: Respond) -> None:
    assert asked(service, "cors.other-origin", **SETTINGS).passed is False
    assert asked(service, "cors.look-alike-origin", **SETTINGS).passed is False


@pytest.mark.parametrize(
    "allows",
    [
        lambda origin: origin.startswith(SITE),
        lambda origin: origin.endswith("app.shop.example"),
        lambda origin: origin.endswith(".app.shop.example"),
        lambda origin: "app.shop.example" in origin,
        lambda origin: re.fullmatch(r"https://app.shop.example", origin) is not None,
        lambda origin: re.match(r"https://app\.shop\.example", origin) is not None,
        lambda origin: origin.partition("://")[2] == "app.shop.example",
        lambda origin: origin.rpartition(":")[0] in (SITE, "http://localhost"),
        lambda origin: origin == "null",
    ],
    ids=[
        "prefix",
        "suffix",
        "a name below it",
        "part",
        "a dot for any letter",
        "a pattern without an end",
        "scheme",
        "port",
        "null",
    ],
)
def test_a_look_alike_that_is_allowed_fails(allows: Callable[[str], bool]) -> None:
    def careless(origin: str) -> bool:
        return _listed(origin) or allows(origin)

    check = asked(_service(careless), "cors.look-alike-origin", **SETTINGS)

    assert check.passed is False


@pytest.mark.parametrize(
    "service",
    [
        _service(preflight=401),
        _service(allows_preflight=lambda _origin: False),
        _service(allows_preflight=lambda _origin: True),
        _service(methods="GET, POST"),
        _service(headers="authorization"),
    ],
    ids=["401", "nobody", "everybody", "no method", "no header"],
)
def test_a_wrong_preflight_fails(service: Respond) -> None:
    check = asked(service, "cors.preflight", **SETTINGS)

    assert check.passed is False


def test_everybody_with_credentials_fails_and_without_passes() -> None:
    everybody = _service(lambda _origin: True, echo="*")
    without = _service(lambda _origin: True, echo="*", credentials="false")
    preflight = _service(lambda _origin: False, allows_preflight=bool, echo="*")

    assert asked(everybody, "cors.credentials", **SETTINGS).passed is False
    assert asked(preflight, "cors.credentials", **SETTINGS).passed is False
    assert asked(without, "cors.credentials", **SETTINGS).passed


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("is_wanted", [False, True])
def test_a_private_network_is_open_where_that_is_configured(
    is_open: bool, is_wanted: bool
) -> None:
    settings: dict[str, Any] = {
        "cors": SETTINGS["cors"] | {"private_network": is_wanted}
    }

    check = asked(_service(private=is_open), "cors.private-network", **settings)

    assert check.passed is (is_open == is_wanted)


def test_no_look_alike_is_listed() -> None:
    """For instance where a service lists a site with and without TLS."""
    origins = ["https://a.example", "http://a.example", "https://a.example:8444"]

    assert not set(look_alikes(origins)) & set(origins)
