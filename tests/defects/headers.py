"""Defects of headers and cookies."""

from __future__ import annotations

from tests.defects.defect import planted_in

_header = planted_in("service/requests.py")
_SET = "                    headers.setdefault(name, value)\n"

DEFECTS = (
    _header(
        "no-hsts",
        "_HEADERS | (_HSTS if https else {})",
        "_HEADERS",
        probe="headers.hsts",
        what="No answer has Strict-Transport-Security.",
    ),
    _header(
        "hsts-of-five-minutes",
        "max-age=63072000",
        "max-age=300",
        probe="headers.hsts",
        what="The max-age of HSTS is still that of the first try.",
    ),
    _header(
        "hsts-misspelt",
        "max-age=63072000;",
        "max_age=63072000;",
        probe="headers.hsts",
        what="HSTS has `max_age` in place of `max-age`, and browsers ignore it.",
    ),
    _header(
        "no-csp",
        "    \"Content-Security-Policy\": \"default-src 'none'; base-uri 'none'; \"\n"
        "    \"form-action 'none'; frame-ancestors 'none'\",\n",
        "",
        probe="headers.csp",
        what="No answer has a Content-Security-Policy.",
    ),
    _header(
        "csp-with-inline-scripts",
        "default-src 'none'; base-uri",
        "default-src 'self' 'unsafe-inline'; base-uri",
        probe="headers.csp",
        what="The Content-Security-Policy allows scripts in the page.",
    ),
    _header(
        "csp-with-any-source",
        "default-src 'none'; base-uri",
        "default-src * data:; base-uri",
        probe="headers.csp",
        what="The Content-Security-Policy allows scripts of every server.",
    ),
    _header(
        "csp-without-frame-ancestors",
        "form-action 'none'; frame-ancestors 'none'",
        "form-action 'none'",
        probe="headers.csp",
        what="default-src does not stand for frame-ancestors, which is missing.",
    ),
    _header(
        "no-frame-options",
        '    "X-Frame-Options": "DENY",\n',
        "",
        probe="headers.frame-options",
        what="No answer has X-Frame-Options.",
    ),
    _header(
        "frames-of-one-site",
        '"X-Frame-Options": "DENY"',
        '"X-Frame-Options": "ALLOW-FROM https://partner.example"',
        probe="headers.frame-options",
        what="X-Frame-Options has ALLOW-FROM, which browsers ignore.",
    ),
    _header(
        "no-nosniff",
        '    "X-Content-Type-Options": "nosniff",\n',
        "",
        probe="headers.nosniff",
        what="No answer has X-Content-Type-Options.",
    ),
    _header(
        "nosniff-misspelt",
        '"nosniff"',
        '"no-sniff"',
        probe="headers.nosniff",
        what="X-Content-Type-Options has another word than nosniff.",
    ),
    _header(
        "no-referrer-policy",
        '    "Referrer-Policy": "no-referrer",\n',
        "",
        probe="headers.referrer-policy",
        what="No answer has a Referrer-Policy.",
    ),
    _header(
        "referrer-policy-unsafe",
        '"Referrer-Policy": "no-referrer"',
        '"Referrer-Policy": "no-referrer, unsafe-url"',
        probe="headers.referrer-policy",
        what="The last word of the Referrer-Policy, which counts, is unsafe-url.",
    ),
    _header(
        "headers-on-good-answers-only",
        _SET,
        f"                    if status < 400:\n    {_SET}",
        probe="headers.nosniff",
        what="Errors lack the headers, as with nginx's add_header without `always`.",
    ),
    _header(
        "headers-not-on-401",
        _SET,
        f"                    if status != 401:\n    {_SET}",
        probe="headers.csp",
        what="What refuses a request without a key sits before what sets the headers.",
    ),
    _header(
        "headers-not-on-422",
        _SET,
        f"                    if status != 422:\n    {_SET}",
        probe="headers.frame-options",
        what="The answer to invalid input is made by a handler that sets no headers.",
    ),
    _header(
        "server-version",
        'headers["X-Request-ID"] =',
        'headers["Server"] = "uvicorn/0.30.1"\n'
        '                headers["X-Request-ID"] =',
        probe="headers.server-version",
        what="The header Server names the version of the web server.",
    ),
    _header(
        "powered-by-on-errors",
        'headers["X-Request-ID"] =',
        'headers.update({"X-Powered-By": "FastAPI 0.115.2"} if status > 399 else {})\n'
        '                headers["X-Request-ID"] =',
        probe="headers.server-version",
        what="The page of errors names the framework's version.",
    ),
    *(
        _header(
            f"cookie-without-{lack}",
            'headers["X-Request-ID"] =',
            f'headers.append("Set-Cookie", "session=abc; Path=/{attributes}")\n'
            '                headers["X-Request-ID"] =',
            probe="headers.cookies",
            what=f"A cookie of the session has no {word}.",
        )
        for lack, word, attributes in (
            ("secure", "Secure", "; HttpOnly; SameSite=Lax"),
            ("httponly", "HttpOnly", "; Secure; SameSite=Lax"),
            ("samesite", "SameSite", "; Secure; HttpOnly"),
        )
    ),
    _header(
        "cookie-for-every-site",
        'headers["X-Request-ID"] =',
        'headers.append("Set-Cookie", "session=a; Secure; HttpOnly; SameSite=None")\n'
        '                headers["X-Request-ID"] =',
        probe="headers.cookies",
        what="A cookie of the session is sent along from every site.",
    ),
)
