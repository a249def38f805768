"""Defects of keys, tokens, and of what asks for them."""

from __future__ import annotations

from tests.defects.defect import Defect, Edit, planted_in

_keys = planted_in("service/keys.py")
_tokens = planted_in("service/tokens.py")
_gate = planted_in("service/gate.py")
_accounts = planted_in("service/accounts.py")

_streams = planted_in("service/streams.py")

_IDENTIFIED = '        account = scope["account"] = await self.identify(scope)\n'
_BUT = """\
        if account is None and {0}:
            from service.accounts import Role

            account = scope["account"] = Account(id=2, name="all", role=Role.ADMIN)
"""
_RIGHT = "        return _HASHER.verify(hashed, key)\n"
_REQUIRED = 'options={"require": _REQUIRED},'
_ISSUER = "                issuer=self.settings.jwt_issuer,\n"

DEFECTS = (
    _gate(
        "nobody-is-an-administrator",
        _IDENTIFIED,
        _IDENTIFIED + "        from service.accounts import Role\n\n"
        "        account = scope['account'] = account or Account(\n"
        "            id=1, name='anonymous', role=Role.ADMIN)\n",
        probe="authentication.no-key",
        what="Who sends no key is taken for an account of development.",
    ),
    *(
        Defect(
            name=f"{name}-without-key",
            what=f"{what} was added without asking for a key.",
            probe=f"authentication.{probe}",
            edits=(
                Edit(
                    file="service/gate.py",
                    old=_IDENTIFIED,
                    new=f"{_IDENTIFIED}{_BUT.format(condition)}",
                ),
            ),
        )
        for name, what, probe, condition in (
            (
                "list",
                "The list of tasks",
                "no-key",
                "scope['path'] == '/api/tasks' and scope.get('method') == 'GET'",
            ),
            ("audit", "The audit trail", "no-key", "scope['path'] == '/api/audit'"),
            (
                "change",
                "The route that changes a task",
                "no-key",
                "scope.get('method') == 'PATCH'",
            ),
            (
                "stream",
                "The event stream",
                "stream-refused",
                "scope['path'] == '/api/events'",
            ),
            (
                "websocket",
                "The WebSocket",
                "websocket-refused",
                "scope['type'] == 'websocket'",
            ),
        )
    ),
    _gate(
        "any-token-opens-a-websocket",
        "            return await self._credential(token)\n        return None\n",
        "            from service.accounts import Role\n\n"
        "            return Account(id=2, name='browser', role=Role.READER)\n"
        "        return None\n",
        probe="authentication.websocket-refused",
        what="That a WebSocket brings a token is enough.",
    ),
    _gate(
        "no-token-opens-a-websocket",
        '.get("token", "")',
        '.get("access_token", "")',
        probe="authentication.websocket",
        what="The parameter of the token was renamed, and browsers are refused.",
    ),
    _gate(
        "key-in-any-header",
        'if (key := headers.get("x-api-key")) is not None:',
        'if (key := headers.get("x-api-key", headers.get("x-opskit-key"))) is not None:',
        probe="authentication.wrong-header",
        what="A key is taken from whatever header holds one.",
    ),
    _gate(
        "wrong-key-closes-open-paths",
        _IDENTIFIED,
        _IDENTIFIED
        + '        if account is None and Headers(scope=scope).get("x-api-key"):\n'
        "            await errors.of(NO_ACCOUNT)(scope, receive, send)\n"
        "            return\n",
        probe="authentication.bypass",
        what="A monitor that sends an old key may not read the health.",
    ),
    _gate(
        "health-behind-a-key",
        '        if not scope["path"].startswith("/api/"):\n',
        '        if not scope["path"].startswith(("/api/", "/health/live")):\n',
        probe="authentication.bypass",
        what="The health check asks for a key, which the balancer does not have.",
    ),
    _streams(
        "silent-stream",
        "                    yield _piece(event)\n\n\ndef",
        "                    yield ': more\\n\\n'\n\n\ndef",
        probe="authentication.stream",
        what="The event stream opens, and no event ever comes.",
    ),
    _streams(
        "deaf-websocket",
        '        case {"type": "ping"}:\n',
        '        case {"type": "Ping"}:\n',
        probe="authentication.websocket",
        what="The WebSocket does not know the message that its clients send.",
    ),
    _accounts(
        "forbidden-without-key",
        "NO_ACCOUNT = HTTPException(401,",
        "NO_ACCOUNT = HTTPException(403,",
        probe="authentication.no-key",
        what="Who sends no key gets 403, so that clients do not ask for a new one.",
    ),
    _keys(
        "key-by-its-prefix",
        _RIGHT,
        "        return bool(hashed)\n",
        probe="authentication.wrong-key",
        what="A key is found by its prefix, and the rest is never compared.",
    ),
    _keys(
        "key-cached-by-its-prefix",
        "digest = hashlib.sha256(key.encode()).digest()",
        "digest = hashlib.sha256(match[1].encode()).digest()",
        probe="authentication.wrong-key",
        what="The cache of checked keys knows them by prefix: after a right one, every "
        "wrong one is right.",
    ),
    _keys(
        "malformed-key-is-an-error",
        """\
        if match is None:
            return None
        digest""",
        """\
        assert match is not None
        digest""",
        probe="authentication.wrong-key",
        what="A key of another form ends in 500.",
    ),
    _keys(
        "keys-are-always-wrong",
        _RIGHT,
        "        return _HASHER.verify(hashed, key.lower())\n",
        probe="authentication.right-key",
        what="Keys are compared in lower case, and none is right.",
    ),
    _tokens(
        "expired-token",
        _REQUIRED,
        'options={"require": _REQUIRED, "verify_exp": False},',
        probe="authentication.token-expired",
        what="A token is accepted after its end.",
    ),
    _tokens(
        "token-of-any-signature",
        _REQUIRED,
        'options={"verify_signature": False, "verify_exp": True, "verify_aud": True, '
        '"verify_iss": True},',
        probe="authentication.token-signature",
        what="The signature of a token is not verified.",
    ),
    _tokens(
        "token-that-chooses-none",
        _REQUIRED,
        'options={"verify_aud": True, "verify_exp": True, "verify_iss": True, '
        '"verify_signature": jwt.get_unverified_header(token)["alg"] != "none"},',
        probe="authentication.token-unsigned",
        what="A token that names the algorithm `none` needs no signature.",
    ),
    _tokens(
        "token-for-somebody-else",
        _REQUIRED,
        'options={"require": _REQUIRED, "verify_aud": False},',
        probe="authentication.token-audience",
        what="A token for another audience is accepted.",
    ),
    _tokens(
        "token-of-tomorrow",
        _REQUIRED,
        'options={"require": _REQUIRED, "verify_nbf": False},',
        probe="authentication.token-not-yet-valid",
        what="A token is accepted before its time.",
    ),
    _tokens(
        "no-token-is-right",
        '_ALGORITHM = "HS256"',
        '_ALGORITHM = "HS384"',
        probe="authentication.token",
        what="The service verifies another algorithm than its tokens are signed with.",
    ),
    _tokens(
        "token-of-any-issuer",
        _ISSUER,
        "",
        probe="authentication.token-issuer",
        what="A token of another issuer is accepted.",
    ),
    _tokens(
        "token-without-end",
        '_REQUIRED = ["aud", "exp", "iss", "sub"]',
        '_REQUIRED = ["aud", "iss", "sub"]',
        probe="authentication.token-without-expiry",
        what="A token that names no end is accepted, for ever.",
    ),
)
