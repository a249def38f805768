"""Defects that show where the service lacks something, is killed, or is asked much.

They are tried in `tests/integration/test_service_strained.py`.
"""

from __future__ import annotations

from tests.defects.defect import planted_in

_gate = planted_in("service/gate.py")
_health = planted_in("service/health.py")
_rates = planted_in("service/rates.py")
_server = planted_in("service/server.py")
_streams = planted_in("service/streams.py")

_IDENTIFY = '        account = scope["account"] = await self.identify(scope)\n'

DEFECTS = (
    _health(
        "names-no-redis",
        "Status.HEALTHY if redis else Status.DEGRADED",
        "Status.HEALTHY",
        probe="resilience.redis-away",
        what="The report calls the service healthy while Redis is away.",
    ),
    _rates(
        "needs-redis",
        "except (RedisError, OSError) as error:",
        "except ZeroDivisionError as error:",
        probe="resilience.redis-away",
        what="Every request fails while Redis is away.",
    ),
    _health(
        "never-asks-redis-again",
        "        _answers(_database, state), _answers(_redis, state)\n    )\n",
        "        _answers(_database, state), _answers(_redis, state)\n    )\n"
        "    state.was_away = redis = redis and getattr(state, 'was_away', True)\n",
        probe="resilience.redis-away",
        what="The service stays degraded after Redis is back.",
    ),
    _health(
        "unhealthy-with-200",
        "503 if worst is Status.UNHEALTHY else 200",
        "200",
        probe="resilience.database-away",
        what="The answer is 200 while the database is away.",
    ),
    _health(
        "not-alive-without-database",
        'async def live() -> Simple:\n    """Answer as long as the process can."""\n',
        "async def live(state: Current) -> Simple:\n"
        '    """Answer as long as the database can."""\n'
        "    await state.database.ping(1.0)\n",
        probe="resilience.database-away",
        what="Liveness needs the database: it would be restarted for nothing.",
    ),
    _server(
        "starts-slowly",
        "    application = app.create(settings)\n",
        "    import time\n\n    time.sleep(6)\n    application = app.create(settings)\n",
        probe="resilience.killed",
        what="A process that was killed is back after more than five seconds.",
    ),
    _gate(
        "asks-one-by-one",
        _IDENTIFY,
        "        import time\n\n        time.sleep(0.3)\n" + _IDENTIFY,
        probe="load.latency",
        what="A call that blocks lets requests wait for each other.",
    ),
    _gate(
        "one-in-ten-fails-under-load",
        _IDENTIFY,
        '        self._asked = getattr(self, "_asked", 0) + 1\n'
        '        assert self._asked % 10, "no connection"\n' + _IDENTIFY,
        probe="load.errors",
        what="One answer in ten is an error.",
    ),
    _streams(
        "drops-events",
        "                if last is None or event.id > last:\n                    yield",
        "                if event.id % 7:\n                    yield",
        probe="load.subscribers",
        what="Subscribers miss one event in seven.",
    ),
    _gate(
        "leaks",
        _IDENTIFY,
        '        self._kept = [*getattr(self, "_kept", []), b"x" * 2**22]\n'
        + _IDENTIFY,
        probe="load.memory",
        what="Each request leaves some megabytes behind.",
    ),
)
