"""Defects of what bounds requests."""

from __future__ import annotations

from dataclasses import replace

from tests.defects.defect import Defect, Edit, planted_in

_FILE = "service/limits.py"
_limits = planted_in(_FILE)

_LENGTH = "        if _length(scope) > length_max:\n"
_BYTES = "        if self._bytes > self.bytes_max:\n"
_SHED = "self._active >= self._settings.concurrent_requests_max\n"
_SHEDDING = '503, "too many requests at once", {"Retry-After": "1"}'
_LATE = '        refusal = errors.answer(504, "this took too long")\n'
_SLOW = "async with asyncio.timeout_at(self._until):"

_ALL = (
    Defect(
        name="no-body-limit",
        what="A body of any length is read, and held in memory.",
        probe="limits.body-announced",
        edits=(
            Edit(file=_FILE, old=_LENGTH, new="        if False:\n"),
            Edit(file=_FILE, old=_BYTES, new="        if False:\n"),
        ),
    ),
    _limits(
        "413-after-reading-all",
        _LENGTH,
        """\
        if _length(scope) > length_max:
            while (await receive()).get("more_body"):
                pass
        if _length(scope) > length_max:
""",
        probe="limits.body-announced",
        what="The whole body is read before it is refused.",
    ),
    _limits(
        "chunked-body-not-counted",
        _BYTES,
        "        if False:\n",
        probe="limits.body-chunked",
        what="Only Content-Length is compared: a body that names no length is read.",
    ),
    _limits(
        "too-large-is-an-error",
        "            refusal = errors.answer(413, _too_large(length_max))\n",
        "            raise ValueError(_too_large(length_max))\n",
        probe="limits.body-announced",
        what="The exception of a long body is not handled, and ends in 500.",
    ),
    _limits(
        "nothing-is-shed",
        _SHED,
        "self._active >= 1_000_000\n",
        probe="limits.concurrency",
        what="Requests are queued, however many wait.",
    ),
    _limits(
        "shed-without-retry-after",
        _SHEDDING,
        '503, "too many requests at once"',
        probe="limits.concurrency",
        what="Too many concurrent requests are refused without Retry-After.",
    ),
    _limits(
        "shed-with-500",
        _SHEDDING,
        '500, "too many requests at once"',
        probe="limits.concurrency",
        what="Too many concurrent requests are answered with 500.",
    ),
    Defect(
        name="slot-is-not-given-back",
        what="A request that is refused keeps its place for ever.",
        probe="limits.concurrency",
        # As many are refused as have a place.
        configuration={"busy_clients = 60": "busy_clients = 80"},
        edits=(
            Edit(
                file=_FILE,
                old="            refusal = errors.answer(*_FULL)\n",
                new="            self._active += 1\n"
                "            refusal = errors.answer(*_FULL)\n",
            ),
        ),
    ),
    _limits(
        "one-after-the-other",
        "            await self._app(scope, exchange.receive, exchange.send)\n",
        '            one = self.__dict__.setdefault("_one", asyncio.Lock())\n'
        "            async with one:\n"
        "                await self._app(scope, exchange.receive, exchange.send)\n",
        probe="limits.slow-clients",
        what="The process works on one request at a time, and waits for slow bodies.",
    ),
    _limits(
        "slow-bodies-are-awaited",
        _SLOW,
        "async with asyncio.timeout_at(None):",
        probe="limits.slow-body",
        what="A body that trickles in is awaited for ever.",
    ),
    _limits(
        "slow-body-is-an-error",
        '                408, "the body came too slowly", ',
        '                500, "the body came too slowly", ',
        probe="limits.slow-body",
        what="A body that trickles in ends in 500, after which clients send it again.",
    ),
    _limits(
        "too-many-chunks-are-malformed",
        "            raise HTTPException(413, _too_large(self.bytes_max))\n",
        "            raise HTTPException(400, _too_large(self.bytes_max))\n",
        probe="limits.body-chunked",
        what="A body without a length that is too long is called malformed.",
    ),
    _limits(
        "no-time-limit",
        "                timeout=self._settings.request_seconds,\n",
        "                timeout=None,\n",
        probe="limits.time-out",
        what="A request may take for ever.",
    ),
    _limits(
        "late-is-an-error",
        _LATE,
        '        refusal = errors.answer(500, "this took too long")\n',
        probe="limits.time-out",
        what="A request that took too long is answered with 500.",
    ),
    _limits(
        "late-is-an-empty-answer",
        _LATE,
        "        from starlette.responses import Response\n\n"
        "        refusal = Response(status_code=504)\n",
        probe="limits.time-out",
        what="A request that took too long is answered with nothing.",
    ),
)
# Less waiting: a service that gives a request up sooner, where one answers sooner.
DEFECTS = tuple(
    replace(
        each,
        settings={"request_seconds": "2.5"},
        configuration={"/wait?seconds=30": "/wait?seconds=4"},
    )
    if each.probe == "limits.time-out"
    else each
    for each in _ALL
)
