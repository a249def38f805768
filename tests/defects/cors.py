"""Defects of what other origins may read."""

from __future__ import annotations

from tests.defects.defect import planted_in

_app = planted_in("service/app.py")
_requests = planted_in("service/requests.py")

_ORIGINS = "        allow_origins=settings.allowed_origins,\n"
_METHODS = '        allow_methods=["GET", "PATCH", "POST"],\n'
_ONE = "settings.allowed_origins[0]"

DEFECTS = (
    _app(
        "cors-for-all",
        _ORIGINS,
        '        allow_origins=["*"],\n',
        probe="cors.other-origin",
        what="Every origin may read.",
    ),
    _requests(
        "cors-for-all-with-credentials",
        '                headers["X-Request-ID"] =',
        """\
                headers["Access-Control-Allow-Origin"] = "*"
                headers["Access-Control-Allow-Credentials"] = "true"
                headers["X-Request-ID"] =""",
        probe="cors.credentials",
        what="Headers written by hand allow every origin, with credentials.",
    ),
    _app(
        "cors-echoes-all",
        _ORIGINS,
        '        allow_origin_regex=".*",\n        allow_credentials=True,\n',
        probe="cors.other-origin",
        what="Whatever origin asks is echoed, with credentials.",
    ),
    _app(
        "cors-by-prefix",
        _ORIGINS,
        f'        allow_origin_regex={_ONE}.replace(".", "[.]") + ".*",\n',
        probe="cors.look-alike-origin",
        what="An origin that begins like a listed one may read.",
    ),
    _app(
        "cors-by-suffix",
        _ORIGINS,
        '        allow_origin_regex="https?://.*"\n'
        f'        + {_ONE}.partition("://")[2].replace(".", "[.]"),\n',
        probe="cors.look-alike-origin",
        what="An origin that ends like a listed one may read.",
    ),
    _app(
        "cors-by-regex",
        _ORIGINS,
        f"        allow_origin_regex={_ONE},\n",
        probe="cors.look-alike-origin",
        what="A dot of the listed origin stands for any character.",
    ),
    _app(
        "cors-without-tls",
        _ORIGINS,
        f'        allow_origins=[*settings.allowed_origins, {_ONE}.replace("https:", "http:")],\n',
        probe="cors.look-alike-origin",
        what="The listed origin may read also where it was loaded without TLS.",
    ),
    _app(
        "cors-for-null",
        _ORIGINS,
        '        allow_origins=[*settings.allowed_origins, "null"],\n',
        probe="cors.look-alike-origin",
        what="The origin `null`, which any page can take on, may read.",
    ),
    _app(
        "cors-for-nobody",
        _ORIGINS,
        "        allow_origins=[],\n",
        probe="cors.listed-origin",
        what="The listed origin may not read.",
    ),
    _app(
        "cors-with-a-slash",
        _ORIGINS,
        '        allow_origins=[each + "/" for each in settings.allowed_origins],\n',
        probe="cors.listed-origin",
        what="Origins are listed with a slash at their end, and none matches.",
    ),
    _app(
        "preflight-without-methods",
        _METHODS,
        '        allow_methods=["GET"],\n',
        probe="cors.preflight",
        what="The preflight request for a method that the pages need is refused.",
    ),
    _app(
        "preflight-without-the-key",
        '"Content-Type", "X-API-Key", ',
        '"Content-Type", ',
        probe="cors.preflight",
        what="The preflight request names the header of the key, and is refused.",
    ),
    _app(
        "private-network",
        _METHODS,
        f"{_METHODS}        allow_private_network=True,\n",
        probe="cors.private-network",
        what="Pages of public networks may ask the private one.",
    ),
)
