"""Headers: what browsers are told for the safety of users, on errors too; cookies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from opskit.checks import Check
from opskit.config.probes import HeadersSettings
from opskit.config.smoke import SmokeSettings
from opskit.probes import policy
from opskit.probes.answers import Judge, examined
from opskit.probes.probe import Probe
from opskit.probes.session import Answer, Session

_Ask = Callable[[str, Judge], Callable[[Session], Check]]

_CSP = "Content-Security-Policy"
_PROGRAMS = (
    "Server",
    "X-Powered-By",
    "X-AspNet-Version",
    "X-AspNetMvc-Version",
    "X-Generator",
)
_VERSION = re.compile(r"\d+\.\d|/\s*v?\d")
_REFERRER_POLICIES = {
    "no-referrer",
    "no-referrer-when-downgrade",
    "origin",
    "origin-when-cross-origin",
    "same-origin",
    "strict-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
}


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield a probe for each header; HSTS only where the service is under https."""
    rules, ask = settings.headers, partial(examined, settings)
    is_secure = rules.behind_tls or settings.url.startswith("https:")
    if is_secure:
        yield _sent(
            ask,
            "hsts",
            ("Strict-Transport-Security", [_hsts_wanted(rules)]),
            lambda answer: judge_hsts(answer, rules),
            why="Without it, an attacker in the network answers the first request, "
            "which a browser sends without TLS.",
            where=", in the service or in the proxy that ends TLS",
        )
    yield Probe(
        name="headers.csp",
        ask=ask(
            f"{_CSP} with safe {', '.join(rules.csp_directives)}",
            lambda answer: judge_csp(answer, rules),
        ),
        what=f"Parses {_CSP} on good answers and on errors, as browsers do.",
        why="It is what is left when an attacker's text gets into a page: without it, "
        "the text runs with the rights of the user.",
        remedy=f"For an API, send `{_CSP}: default-src 'none'; base-uri 'none'; "
        "frame-ancestors 'none'` on every answer. For pages, name the servers of "
        "scripts, and allow inline scripts by nonce or hash.",
    )
    yield _sent(
        ask,
        "frame-options",
        ("X-Frame-Options", rules.frame_options),
        lambda answer: judge_frame_options(answer, rules),
        why="In another site's frame, users click on what they do not see. Browsers "
        "that do not know frame-ancestors know this header.",
    )
    yield _sent(
        ask,
        "nosniff",
        ("X-Content-Type-Options", ["nosniff"]),
        judge_nosniff,
        why="Without it, a browser may run as a script what was sent as data.",
    )
    yield _sent(
        ask,
        "referrer-policy",
        ("Referrer-Policy", rules.referrer_policies),
        lambda answer: judge_referrer_policy(answer, rules),
        why="Addresses hold names and tokens; without it, other sites may learn them.",
    )
    yield Probe(
        name="headers.server-version",
        ask=ask(f"no version in {', '.join(_PROGRAMS)}", judge_programs),
        what="Looks for versions of programs in headers, on errors too.",
        why="A version tells an attacker which known holes to try.",
        remedy="Start uvicorn with `--no-server-header`, set `server_tokens off` in "
        "nginx, and remove X-Powered-By.",
    )
    yield _cookies(ask, rules, is_secure)


def _sent(
    ask: _Ask,
    name: str,
    header: tuple[str, Sequence[str]],
    judge: Judge,
    *,
    why: str,
    where: str = "",
) -> Probe:
    """Return the probe of a header that every answer must have, with one of values."""
    field, values = header
    return Probe(
        name=f"headers.{name}",
        ask=ask(f"{field}: {' or '.join(values)}", judge),
        what=f"Reads {field} on good answers and on errors.",
        why=why,
        remedy=f"Send `{field}: {values[0]}` on every answer{where}.",
    )


def _cookies(ask: _Ask, rules: HeadersSettings, is_secure: bool) -> Probe:
    return Probe(
        name="headers.cookies",
        ask=ask(
            f"cookies with {'Secure, ' if is_secure else ''}HttpOnly and SameSite "
            f"{' or '.join(rules.same_site)}",
            lambda answer: judge_cookies(answer, rules, is_secure=is_secure),
        ),
        what="Reads the attributes of every cookie that an answer sets.",
        why="A cookie without Secure is read in the network, one without HttpOnly by "
        "a script, and one without SameSite is sent along from other sites.",
        remedy="Set cookies with `Secure; HttpOnly; SameSite=Lax`. Name one that "
        "scripts must read in `smoke.headers.script_cookies`.",
    )


def judge_hsts(answer: Answer, rules: HeadersSettings) -> str:
    """Return what is wrong with HSTS; of several headers, browsers obey the first."""
    fields = answer.headers.getlist("Strict-Transport-Security")
    if not fields:
        return "none"
    parts = [part.strip().lower() for part in fields[0].split(";")]
    ages = [part for part in parts if part.startswith("max-age")]
    found = [re.fullmatch(r'max-age\s*=\s*("?)(\d{1,10})\1', age) for age in ages]
    if len(found) != 1 or found[0] is None:
        return f"no valid max-age in {fields[0]!r}"
    if int(found[0][2]) < rules.hsts_max_age.total_seconds():
        return f"max-age={found[0][2]}"
    if rules.hsts_subdomains and "includesubdomains" not in parts:
        return "no includeSubDomains"
    return ""


def _hsts_wanted(rules: HeadersSettings) -> str:
    age = f"max-age={rules.hsts_max_age.total_seconds():.0f}"
    return f"{age}; includeSubDomains" if rules.hsts_subdomains else age


def judge_csp(answer: Answer, rules: HeadersSettings) -> str:
    """Return what the Content-Security-Policy leaves open."""
    found = policy.weaknesses(answer.headers.getlist(_CSP), rules.csp_directives)
    return ", ".join(sorted(found))


def judge_frame_options(answer: Answer, rules: HeadersSettings) -> str:
    """Return what is wrong with X-Frame-Options."""
    found = {value.upper() for value in _listed(answer, "X-Frame-Options")}
    is_good = len(found) == 1 and found <= {
        each.upper() for each in rules.frame_options
    }
    return "" if is_good else ", ".join(sorted(found)) or "none"


def judge_nosniff(answer: Answer) -> str:
    """Return what is wrong with X-Content-Type-Options."""
    found = [value.lower() for value in _listed(answer, "X-Content-Type-Options")]
    return "" if found[:1] == ["nosniff"] else ", ".join(found) or "none"


def judge_referrer_policy(answer: Answer, rules: HeadersSettings) -> str:
    """Return what is wrong with Referrer-Policy: the last word that is one counts."""
    found = [value.lower() for value in _listed(answer, "Referrer-Policy")]
    known = [value for value in found if value in _REFERRER_POLICIES]
    return (
        ""
        if known and known[-1] in rules.referrer_policies
        else (", ".join(found) or "none")
    )


def judge_programs(answer: Answer) -> str:
    """Return the headers that name the version of a program."""
    found = {name: ", ".join(answer.headers.getlist(name)) for name in _PROGRAMS}
    return ", ".join(
        f"{name}: {value}" for name, value in found.items() if _VERSION.search(value)
    )


def judge_cookies(answer: Answer, rules: HeadersSettings, *, is_secure: bool) -> str:
    """Return what the cookies lack, by their names."""
    return ", ".join(
        f"{name} without {lack}"
        for name, attributes in map(_cookie, answer.headers.getlist("Set-Cookie"))
        for lack in _lacks(name, attributes, rules, is_secure)
    )


def _lacks(
    name: str, attributes: dict[str, str], rules: HeadersSettings, is_secure: bool
) -> Iterator[str]:
    if is_secure and "secure" not in attributes:
        yield "Secure"
    if "httponly" not in attributes and name not in rules.script_cookies:
        yield "HttpOnly"
    allowed = {each.lower() for each in rules.same_site}
    if attributes.get("samesite", "").lower() not in allowed:
        yield f"SameSite={' or '.join(rules.same_site)}"


def _cookie(header: str) -> tuple[str, dict[str, str]]:
    """Return a cookie's name and attributes, without its value."""
    (name, _value), *attributes = (
        (key.strip(), value.strip())
        for key, _, value in (part.partition("=") for part in header.split(";"))
    )
    return name, {key.lower(): value for key, value in attributes}


def _listed(answer: Answer, name: str) -> list[str]:
    fields = ",".join(answer.headers.getlist(name)).split(",")
    return [field.strip() for field in fields if field.strip()]
