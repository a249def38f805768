"""Gate: finds out who asks, and counts how often, before anything else is done."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.accounts import NO_ACCOUNT, Account
from service.keys import Keys
from service.rates import Rates
from service.tokens import Tokens


class Gate:
    """Middleware: puts the account, or None, into the scope.

    All below /api needs an account, and has a rate limit.
    """

    def __init__(
        self, app: ASGIApp, *, keys: Keys, tokens: Tokens, rates: Rates
    ) -> None:
        self._app, self._keys, self._tokens, self._rates = app, keys, tokens, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; refuse what has no account, or comes too often."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        account = scope["account"] = await self.identify(scope)
        if not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        own_limit = account.rate_limit if account else None
        rate = await self._rates.hit(_client(scope, account), own_limit)

        async def with_rate(message: Message) -> None:
            if message["type"].endswith("http.response.start"):
                MutableHeaders(scope=message).update(rate.headers)
            await send(message)

        answer: ASGIApp = self._app
        if rate.is_exceeded:
            answer = errors.answer(429, "too many requests")
        elif account is None:
            answer = errors.of(NO_ACCOUNT)
        await answer(scope, receive, with_rate)

    async def identify(self, scope: Scope) -> Account | None:
        """Return the account whose key or token a request carries."""
        headers = Headers(scope=scope)
        if (key := headers.get("x-api-key")) is not None:
            return await self._keys.account(key)
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._credential(credential)
        # A browser cannot give a WebSocket headers.
        if scope["type"] == "websocket":
            token = QueryParams(scope["query_string"]).get("token", "")
            return await self._credential(token)
        return None

    async def _credential(self, credential: str) -> Account | None:
        key = await self._keys.account(credential)
        return key or await self._tokens.account(credential)


def _client(scope: Scope, account: Account | None) -> str:
    if account is not None:
        return f"account:{account.id}"
    return f"address:{(scope.get('client') or ('unknown',))[0]}"
