"""The probes of headers and cookies: a right answer passes, and each wrong one fails."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from opskit.config.smoke import SmokeSettings
from opskit.probes import headers
from tests.unit.probed import Respond, asked

HSTS, CSP = "Strict-Transport-Security", "Content-Security-Policy"
FRAMES, SNIFF, REFERRER = (
    "X-Frame-Options",
    "X-Content-Type-Options",
    "Referrer-Policy",
)
GOOD = {
    HSTS: "max-age=31536000; includeSubDomains",
    CSP: "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    FRAMES: "DENY",
    SNIFF: "nosniff",
    REFERRER: "no-referrer",
    "Server": "shop",
    "Set-Cookie": "session=a81f; Path=/; Secure; HttpOnly; SameSite=Lax",
}
BEHIND_TLS: dict[str, Any] = {"headers": {"behind_tls": True}}
PROBES = {
    HSTS: "headers.hsts",
    CSP: "headers.csp",
    FRAMES: "headers.frame-options",
    SNIFF: "headers.nosniff",
    REFERRER: "headers.referrer-policy",
    "Server": "headers.server-version",
    "Set-Cookie": "headers.cookies",
}
# What each answer must have: one with an error is asked for as well.
STATUSES = {
    ("GET", "/health"): 200,
    ("POST", "/health"): 405,
    ("GET", "/api"): 401,
    ("POST", "/api"): 422,
}


def _service(
    *, without: tuple[str, int] = ("", 0), **changed: dict[str, str | None]
) -> Respond:
    """Return a service; `without` is a header, and the status that lacks it."""

    def respond(request: Request) -> Response:
        status = STATUSES.get((request.method, request.url.path), 404)
        found = {**GOOD, **changed.get("headers", {})}
        if status == without[1]:
            found[without[0]] = None
        return PlainTextResponse(
            "", status, {name: value for name, value in found.items() if value}
        )

    return respond


def _judged(name: str, value: str | None, **rules: Any) -> bool | None:
    settings: dict[str, Any] = {"headers": {"behind_tls": True, **rules}}
    check = asked(_service(headers={name: value}), PROBES[name], **settings)
    return check.passed


@pytest.mark.parametrize("name", PROBES.values())
def test_a_right_answer_passes(name: str) -> None:
    check = asked(_service(), name, **BEHIND_TLS)

    assert check.passed, check


@pytest.mark.parametrize("status", [200, 401, 404, 405, 422])
@pytest.mark.parametrize("header", [HSTS, CSP, FRAMES, SNIFF, REFERRER])
def test_a_header_that_one_answer_lacks_fails(header: str, status: int) -> None:
    answers = [
        {"path": "/api", "status": 401},
        {"path": "/api", "method": "POST", "body": "{}", "status": 422},
    ]
    settings: dict[str, Any] = {"headers": {"behind_tls": True, "answers": answers}}

    check = asked(_service(without=(header, status)), PROBES[header], **settings)

    assert check.passed is False
    assert f"({status})" in check.observed
    assert check.observed.count(";") == 0


def test_an_answer_that_is_not_the_configured_one_fails() -> None:
    """What is configured as a 422 must be one: else nothing was shown of a 422."""
    settings: dict[str, Any] = {
        "headers": {"answers": [{"path": "/api", "status": 422}]}
    }

    check = asked(_service(), "headers.nosniff", **settings)

    assert (check.passed, check.observed) == (False, "401")


@pytest.mark.parametrize(
    ("value", "is_good"),
    [
        ("max-age=31536000", True),
        ("max-age=15552000", True),
        ("Max-Age = 31536000 ; preload", True),
        ('max-age="31536000"', True),
        ("max-age=15551999", False),
        ("max-age=0", False),
        ("max-age=", False),
        ("max-age=soon", False),
        ("includeSubDomains", False),
        ("max-age=31536000; max-age=0", False),
        ("max-age=31536000, max-age=31536000", False),
        (None, False),
    ],
)
def test_hsts(value: str | None, is_good: bool) -> None:
    assert _judged(HSTS, value) is is_good


def test_hsts_of_a_policy() -> None:
    wanted: dict[str, Any] = {"hsts_max_age": "365d", "hsts_subdomains": True}

    assert _judged(HSTS, "max-age=31536000; includeSubDomains", **wanted)
    assert not _judged(HSTS, "max-age=31535999; includeSubDomains", **wanted)
    assert not _judged(HSTS, "max-age=31536000", **wanted)


def test_hsts_is_asked_under_https_only() -> None:
    plain, encrypted, behind = (
        {each.name for each in headers.probes(settings)}
        for settings in (
            SmokeSettings(url="http://a.example"),
            SmokeSettings(url="https://a.example"),
            SmokeSettings.model_validate({"url": "http://a.example", **BEHIND_TLS}),
        )
    )

    assert encrypted == behind == set(PROBES.values())
    assert encrypted - plain == {"headers.hsts"}


SAFE = "default-src 'self'; base-uri 'self'; frame-ancestors 'none'"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (SAFE, ""),
        (f"{SAFE}; script-src 'self' https://cdn.example 'wasm-unsafe-eval'", ""),
        (f"{SAFE}; script-src 'nonce-abc' 'unsafe-inline'", ""),
        (f"{SAFE}; script-src 'sha256-abc=' 'strict-dynamic' https: *", ""),
        (f"{SAFE}; style-src 'unsafe-inline'; img-src data: http://a.example", ""),
        (f"{SAFE}, default-src *", ""),
        ("BASE-URI 'SELF';DEFAULT-SRC 'self';; frame-ancestors 'none' ;", ""),
        (None, "there is no policy"),
        ("base-uri 'self'; frame-ancestors 'none'", "object-src is missing, script-src is missing"),
        (SAFE.replace("base-uri", "x"), "base-uri is missing"),
        (SAFE.replace("frame-ancestors", "x"), "frame-ancestors is missing"),
        (SAFE.replace("'none'", "*"), "frame-ancestors allows *"),
        (SAFE.replace("base-uri 'self'", "base-uri https:"), "base-uri allows https:"),
        (f"{SAFE}; object-src *", "object-src allows *"),
        (f"{SAFE}; script-src 'self' 'unsafe-inline'", "script-src allows 'unsafe-inline'"),
        (f"{SAFE}; script-src 'self' 'Unsafe-Eval'", "script-src allows 'unsafe-eval'"),
        (f"{SAFE}; script-src 'nonce-abc' 'unsafe-eval'", "script-src allows 'unsafe-eval'"),
        (f"{SAFE}; script-src 'nonce-abc' https:", "script-src allows https:"),
        (f"{SAFE}; script-src data:", "script-src allows data:"),
        (f"{SAFE}; script-src-elem 'unsafe-inline'", "script-src-elem allows 'unsafe-inline'"),
        (f"{SAFE}; script-src-attr 'unsafe-inline'", "script-src-attr allows 'unsafe-inline'"),
        (f"{SAFE}; connect-src http://a.example", "connect-src allows http://a.example"),
        (f"script-src 'self'; {SAFE}; script-src *", "script-src is there twice, and only the first counts"),
    ],
)  # fmt: skip
def test_csp(value: str | None, fault: str) -> None:
    check = asked(_service(headers={CSP: value}), "headers.csp", **BEHIND_TLS)

    assert check.passed is not bool(fault)
    assert not fault or check.observed.partition(": ")[2].partition(";")[0] == fault


def test_csp_of_a_policy() -> None:
    """A strict one looks at styles too; a lax one asks for less."""
    styled = f"{SAFE}; style-src 'unsafe-inline'"

    assert not _judged(CSP, styled, csp_directives=["style-src"])
    assert _judged(CSP, "frame-ancestors 'self'", csp_directives=["frame-ancestors"])


@pytest.mark.parametrize(
    ("name", "value", "is_good"),
    [
        (FRAMES, "deny", True),
        (FRAMES, "SAMEORIGIN", True),
        (FRAMES, "DENY, DENY", True),
        (FRAMES, "DENY, SAMEORIGIN", False),
        (FRAMES, "ALLOW-FROM https://a.example", False),
        (FRAMES, "ALLOWALL", False),
        (FRAMES, None, False),
        (SNIFF, "NoSniff", True),
        (SNIFF, "nosniff, nosniff", True),
        (SNIFF, "none, nosniff", False),
        (SNIFF, "sniff", False),
        (SNIFF, None, False),
        (REFERRER, "strict-origin-when-cross-origin", True),
        (REFERRER, "unsafe-url, No-Referrer", True),
        (REFERRER, "same-origin, a-policy-to-come", True),
        (REFERRER, "no-referrer, unsafe-url", False),
        (REFERRER, "no-referrer-when-downgrade", False),
        (REFERRER, "never", False),
        (REFERRER, None, False),
    ],
)
def test_values(name: str, value: str | None, is_good: bool) -> None:
    assert _judged(name, value) is is_good


def test_values_of_a_policy() -> None:
    assert not _judged(FRAMES, "SAMEORIGIN", frame_options=["DENY"])
    assert not _judged(REFERRER, "same-origin", referrer_policies=["no-referrer"])
    assert _judged(REFERRER, "origin", referrer_policies=["origin"])


@pytest.mark.parametrize(
    ("header", "value", "is_good"),
    [
        ("Server", "uvicorn", True),
        ("Server", "nginx/1.22.1", False),
        ("Server", "Apache/2", False),
        ("X-Powered-By", "Express", True),
        ("X-Powered-By", "PHP/8.2.7", False),
        ("X-AspNet-Version", "4.0.30319", False),
    ],
)
def test_versions_of_programs(header: str, value: str, is_good: bool) -> None:
    check = asked(_service(headers={header: value}), "headers.server-version")

    assert check.passed is is_good


@pytest.mark.parametrize(
    ("attributes", "lack"),
    [
        ("; Secure; HttpOnly; SameSite=Strict", ""),
        (";secure ;HTTPONLY; samesite=lax; Max-Age=60", ""),
        ("; HttpOnly; SameSite=Lax", "Secure"),
        ("; Secure; SameSite=Lax", "HttpOnly"),
        ("; Secure; HttpOnly", "SameSite=Lax or Strict"),
        ("; Secure; HttpOnly; SameSite=None", "SameSite=Lax or Strict"),
        ("; Secure; HttpOnly; SameSite", "SameSite=Lax or Strict"),
    ],
)
def test_cookies(attributes: str, lack: str) -> None:
    """The value of a cookie is never shown."""
    service = _service(headers={"Set-Cookie": f"session=a81f{attributes}"})

    check = asked(service, "headers.cookies", **BEHIND_TLS)

    assert check.passed is not bool(lack)
    assert not lack or f"session without {lack}" in check.observed
    assert "a81f" not in check.observed


def test_cookies_of_a_policy() -> None:
    csrf = "csrf=a81f; Secure; SameSite=None"
    rules: dict[str, Any] = {"script_cookies": ["csrf"], "same_site": ["None"]}

    assert _judged("Set-Cookie", csrf, **rules)
    assert not _judged("Set-Cookie", csrf.replace("csrf", "session"), **rules)


def test_a_cookie_needs_no_secure_without_tls() -> None:
    service = _service(headers={"Set-Cookie": "session=1; HttpOnly; SameSite=Lax"})

    assert asked(service, "headers.cookies").passed
