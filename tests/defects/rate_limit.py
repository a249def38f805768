"""Defects of the rate limit."""

from __future__ import annotations

from tests.defects.defect import planted_in

_gate = planted_in("service/gate.py")
_rates = planted_in("service/rates.py")
_PROBE = "rate_limit.burst"

DEFECTS = (
    _gate(
        "no-rate-limit",
        "        if rate.is_exceeded:\n",
        "        if rate.is_exceeded and not account:\n",
        probe=_PROBE,
        what="Who has a key is never refused.",
    ),
    _rates(
        "ten-times-the-limit",
        "return self.number > self.limit",
        "return self.number > 10 * self.limit",
        probe=_PROBE,
        what="Refuses only after ten times the requests that it declares.",
    ),
    _gate(
        "address-is-locked-out",
        "        if rate.is_exceeded:\n",
        """\
        import time

        address = (scope.get("client") or ("",))[0]
        locked = self.__dict__.setdefault("locked", {})
        if rate.is_exceeded:
            locked[address] = time.monotonic() + 5
        if locked.get(address, 0) > time.monotonic():
""",
        probe="rate_limit.other-keys",
        what="One client's burst locks out all others behind the same address.",
    ),
    _rates(
        "no-retry-after",
        'told["Retry-After"] = str(wait)',
        'told["X-Retry"] = str(wait)',
        probe=_PROBE,
        what="429 without Retry-After.",
    ),
    _rates(
        "retry-after-as-a-time",
        'told["Retry-After"] = str(wait)',
        'told["Retry-After"] = str(math.ceil(self.reset_at))',
        probe=_PROBE,
        what="Retry-After is a time since 1970 in place of seconds from now.",
    ),
    _rates(
        "retry-at-once",
        "wait = max(1, math.ceil(self.reset_at - time.time()))",
        "wait = 0",
        probe=_PROBE,
        what="Retry-After is 0 while requests are still refused.",
    ),
    _gate(
        "no-rate-in-good-answers",
        'if message["type"].endswith("http.response.start"):',
        'if message["type"].endswith("http.response.start") and rate.is_exceeded:',
        probe=_PROBE,
        what="X-RateLimit-* only when it is too late.",
    ),
    _gate(
        "no-rate-in-refusals",
        "await answer(scope, receive, with_rate)",
        "await answer(scope, receive, send if rate.is_exceeded else with_rate)",
        probe=_PROBE,
        what="429 without X-RateLimit-* and Retry-After.",
    ),
    _rates(
        "remaining-stands-still",
        "str(max(0, self.limit - self.number))",
        "str(self.limit - 1)",
        probe=_PROBE,
        what="X-RateLimit-Remaining does not count down.",
    ),
    _rates(
        "remaining-below-zero",
        "str(max(0, self.limit - self.number))",
        "str(self.limit - self.number)",
        probe=_PROBE,
        what="X-RateLimit-Remaining becomes negative.",
    ),
    _rates(
        "limit-of-another-plan",
        '"X-RateLimit-Limit": str(self.limit)',
        '"X-RateLimit-Limit": str(2 * self.limit)',
        probe=_PROBE,
        what="X-RateLimit-Limit is not the limit that holds.",
    ),
    _gate(
        "refused-with-503",
        'errors.answer(429, "too many requests")',
        'errors.answer(503, "too many requests")',
        probe=_PROBE,
        what="Refuses with 503, for which balancers take the service out.",
    ),
    _gate(
        "refused-with-500",
        'answer = errors.answer(429, "too many requests")',
        'raise RuntimeError("too many requests")',
        probe=_PROBE,
        what="The exception that refuses is not handled, and ends in 500.",
    ),
    _rates(
        "refused-for-longer-than-told",
        """\
            reset_at=await storage.get_expiry(key) + _ROUNDED_SECONDS,
        )
""",
        """\
            reset_at=await storage.get_expiry(key) + _ROUNDED_SECONDS,
        ) if not await self._is_out(storage, key, number > item.amount) else Rate(
            limit=item.amount, number=item.amount + 1, reset_at=time.time() + 1
        )

    async def _is_out(self, storage: Storage, key: str, is_exceeded: bool) -> bool:
        if is_exceeded:
            await storage.incr(f"{key}/out", 60)
        return await storage.get(f"{key}/out") > 0
""",
        probe="rate_limit.restored",
        what="Retry-After is a second, and the client is refused for a minute.",
    ),
    _rates(
        "window-never-ends",
        "storage.incr(key, item.get_expiry())",
        "storage.incr(key, 3600)",
        probe=_PROBE,
        what="The window lasts an hour in place of what is declared.",
    ),
)
