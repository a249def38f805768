"""Defects of how long answers take, and how often they fail."""

from __future__ import annotations

from dataclasses import replace

from tests.defects.defect import planted_in

_gate = planted_in("service/gate.py")
_PASSED_ON = '        account = scope["account"] = await self.identify(scope)\n'

_ALL = (
    _gate(
        "every-answer-is-slow",
        _PASSED_ON,
        "        import asyncio\n\n        await asyncio.sleep(0.6)\n" + _PASSED_ON,
        probe="latency.percentiles",
        what="Every answer takes most of a second.",
    ),
    _gate(
        "the-process-sleeps",
        _PASSED_ON,
        "        import time\n\n        time.sleep(0.03)\n" + _PASSED_ON,
        probe="latency.percentiles",
        what="A call that blocks holds up all requests of the process.",
    ),
    _gate(
        "one-in-ten-is-slow",
        _PASSED_ON,
        "        import asyncio\n\n"
        '        self._asked = getattr(self, "_asked", 0) + 1\n'
        "        await asyncio.sleep(1.2 if self._asked % 10 == 0 else 0)\n"
        + _PASSED_ON,
        probe="latency.percentiles",
        what="One answer in ten waits for a lock.",
    ),
    _gate(
        "one-in-ten-fails",
        _PASSED_ON,
        '        self._asked = getattr(self, "_asked", 0) + 1\n'
        "        if self._asked % 10 == 0:\n"
        '            raise RuntimeError("no connection")\n' + _PASSED_ON,
        probe="latency.errors",
        what="One answer in ten is an error.",
    ),
)
# Less waiting: more at once, and fewer, none of them refused.
DEFECTS = tuple(
    replace(
        each,
        settings={"rate_limit": "100000/minute"},
        configuration={
            "[smoke.latency]\n": "[smoke.latency]\nrequests = 100\nconnections = 32\n"
        },
    )
    for each in _ALL
)
