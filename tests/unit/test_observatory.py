"""The probes of headers against Mozilla's HTTP Observatory, which judges on its own.

Where the two differ, the reason stands here; a difference that appears or vanishes fails.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from urllib3 import HTTPHeaderDict

from opskit.config.probes import HeadersSettings
from opskit.probes import headers
from opskit.probes.session import Answer
from tests.unit import stock

FOLDER = Path(__file__).resolve().parents[1] / "observatory"
RULES = HeadersSettings(behind_tls=True)
HSTS, CSP = "Strict-Transport-Security", "Content-Security-Policy"
FRAMES, SNIFF, REFERRER = "X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy"
COOKIE = "Set-Cookie"
KINDS = {
    HSTS: "hsts",
    CSP: "csp",
    FRAMES: "frame-options",
    SNIFF: "nosniff",
    REFERRER: "referrer-policy",
    COOKIE: "cookies",
}
JUDGES: dict[str, Callable[[Answer], str]] = {
    HSTS: lambda answer: headers.judge_hsts(answer, RULES),
    CSP: lambda answer: headers.judge_csp(answer, RULES),
    FRAMES: lambda answer: headers.judge_frame_options(answer, RULES),
    SNIFF: headers.judge_nosniff,
    REFERRER: lambda answer: headers.judge_referrer_policy(answer, RULES),
    COOKIE: lambda answer: headers.judge_cookies(answer, RULES, is_secure=True),
}
SAFE = "default-src 'self'; base-uri 'self'; frame-ancestors 'none'"
NO_AGE = "RFC 6797 wants a number; the Observatory compares what is none, and passes it"
TWICE = "RFC 6797, 6.1: no directive twice; browsers may ignore the header"
BASE = "default-src does not stand for base-uri, which an attacker's text may then set"
FRAMED = (
    "any site may frame the page; the Observatory notes it, and does not judge by it"
)
NO_SCRIPT = "without a nonce no script runs: useless, and safe"
ELEMENTS = "browsers that know script-src-elem obey it in the place of script-src"
OBSOLETE = "no browser obeys ALLOW-FROM any more: any site may frame the page"
FIRST = "the Fetch standard takes the first of several values"
NAMED = "browsers differ in what they take for SameSite where a cookie has none"
STRICT = "the policy goes for every cookie, not only for names that look like sessions"
# Headers of an answer that are judged by the first one's kind; and why we differ, if so.
SETS: list[tuple[list[tuple[str, str]], str]] = [
    ([(HSTS, "max-age=31536000")], ""),
    ([(HSTS, "max-age=15552000; includeSubDomains; preload")], ""),
    ([(HSTS, "MAX-AGE=31536000")], ""),
    ([(HSTS, "max-age=15551999")], ""),
    ([(HSTS, "max-age=0")], ""),
    ([(HSTS, "includeSubDomains")], ""),
    ([(HSTS, "max-age=31536000, max-age=31536000")], ""),
    ([(HSTS, "")], ""),
    ([(HSTS, "max-age=soon")], NO_AGE),
    ([(HSTS, "max-age=31536000; max-age=31536000")], TWICE),
    ([(HSTS, 'max-age="31536000"')], ""),
    ([(CSP, SAFE)], ""),
    ([(CSP, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'")], ""),
    ([(CSP, "default-src 'none'; frame-ancestors 'none'")], BASE),
    ([(CSP, "default-src 'none'; base-uri 'none'")], FRAMED),
    ([(CSP, f"{SAFE}; script-src 'unsafe-inline'")], ""),
    ([(CSP, f"{SAFE}; script-src 'unsafe-eval'")], ""),
    ([(CSP, f"{SAFE}; script-src 'nonce-abc' 'unsafe-inline'")], ""),
    ([(CSP, f"{SAFE}; script-src 'nonce-abc' 'strict-dynamic' https:")], ""),
    ([(CSP, f"{SAFE}; script-src 'strict-dynamic'")], NO_SCRIPT),
    ([(CSP, f"{SAFE}; script-src data:")], ""),
    ([(CSP, f"{SAFE}; script-src https:")], ""),
    ([(CSP, f"{SAFE}; script-src *")], ""),
    ([(CSP, f"{SAFE}; object-src *")], ""),
    ([(CSP, f"{SAFE}; style-src 'unsafe-inline'")], ""),
    ([(CSP, f"{SAFE}; script-src-elem 'unsafe-inline'")], ELEMENTS),
    ([(CSP, f"{SAFE}; connect-src http://a.example")], ""),
    ([(CSP, f"{SAFE}; img-src http://a.example")], ""),
    ([(CSP, f"script-src 'self'; {SAFE}; script-src *")], ""),
    ([(CSP, SAFE.replace("'none'", "*"))], FRAMED),
    ([(CSP, "base-uri 'self'; frame-ancestors 'none'")], ""),
    ([(CSP, SAFE), (CSP, "default-src *")], ""),
    ([(FRAMES, "DENY")], ""),
    ([(FRAMES, "sameorigin")], ""),
    ([(FRAMES, "ALLOW-FROM https://a.example")], OBSOLETE),
    ([(FRAMES, "ALLOWALL")], ""),
    ([(SNIFF, "nosniff")], ""),
    ([(SNIFF, "NOSNIFF")], ""),
    ([(SNIFF, "sniff")], ""),
    ([(SNIFF, "nosniff, nosniff")], FIRST),
    ([(REFERRER, "no-referrer")], ""),
    ([(REFERRER, "unsafe-url, strict-origin")], ""),
    ([(REFERRER, "no-referrer, unsafe-url")], ""),
    ([(REFERRER, "no-referrer-when-downgrade")], ""),
    ([(REFERRER, "never")], ""),
    ([(REFERRER, "")], ""),
    ([(COOKIE, "session=1; Secure; HttpOnly; SameSite=Lax")], ""),
    ([(COOKIE, "session=1; HttpOnly; SameSite=Lax")], ""),
    ([(COOKIE, "session=1; Secure; SameSite=Lax")], ""),
    ([(COOKIE, "session=1; Secure; HttpOnly")], NAMED),
    ([(COOKIE, "theme=1; Secure; SameSite=Lax")], STRICT),
    ([(COOKIE, "session=1; Secure; HttpOnly; SameSite=Sometimes")], ""),
    ([(COOKIE, "csrf=1; Secure; HttpOnly")], ""),
]


def _grades() -> list[dict[str, bool]]:
    if not (FOLDER / "node_modules").is_dir():
        stock.missing("observatory")
    done = subprocess.run(
        [stock.program("node"), "grade.mjs"],
        cwd=FOLDER,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        input=json.dumps([pairs for pairs, _reason in SETS]).encode(),
        capture_output=True,
        timeout=120,
        check=True,
    )
    grades: list[dict[str, bool]] = json.loads(done.stdout)
    return grades


@pytest.fixture(scope="module")
def grades() -> list[dict[str, bool]]:
    """What the Observatory says of each set."""
    return _grades()


@pytest.mark.parametrize("number", range(len(SETS)))
def test_both_judge_alike_or_the_reason_is_given(
    number: int, grades: list[dict[str, bool]]
) -> None:
    pairs, reason = SETS[number]
    name = pairs[0][0]
    given = HTTPHeaderDict()
    for each, value in pairs:
        given.add(each, value)
    answer = Answer(status=200, headers=given, body=b"", seconds=0)

    differs = (not JUDGES[name](answer)) != grades[number][KINDS[name]]

    assert differs == bool(reason), (pairs, JUDGES[name](answer))
