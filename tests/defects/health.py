"""Defects of what the service says of itself."""

from __future__ import annotations

from tests.defects.defect import Defect, Edit, planted_in

_FILE = "service/health.py"
_health = planted_in(_FILE)

_CODE = "503 if worst is Status.UNHEALTHY else 200"
_READY = 'return JSONResponse({"status": status}, 200 if is_ready else 503)'
_WORST = "    worst = max(parts.values(), key=list(Status).index)\n"
# The database as such stays: it is the report that says otherwise.
_SICK = Edit(
    file=_FILE,
    old='"database": Status.HEALTHY if database else Status.UNHEALTHY',
    new='"database": Status.UNHEALTHY if database else Status.HEALTHY',
)

DEFECTS = (
    Defect(
        name="200-while-unhealthy",
        what="A database is away, the body says unhealthy, and the status code is 200.",
        probe="health.agreement",
        edits=(_SICK, Edit(file=_FILE, old=_CODE, new="200")),
    ),
    Defect(
        name="unhealthy",
        what="The service is unhealthy, and says so with 503.",
        probe="health.status",
        edits=(_SICK,),
    ),
    _health(
        "503-while-healthy",
        _CODE,
        "503 if worst is Status.HEALTHY else 200",
        probe="health.agreement",
        what="The status code is 503 while all is well.",
    ),
    Defect(
        name="healthy-whatever-happens",
        what="The whole is called healthy while a part is not.",
        probe="health.agreement",
        edits=(
            _SICK,
            Edit(file=_FILE, old=_WORST, new="    worst = Status.HEALTHY\n"),
        ),
    ),
    _health(
        "no-version",
        "        version=state.settings.version,\n",
        '        version="unknown",\n',
        probe="health.report",
        what="The version is a placeholder that no build has filled.",
    ),
    _health(
        "no-uptime",
        "round(time.monotonic() - state.began, 3)",
        "0 - state.began",
        probe="health.report",
        what="The uptime is counted from the wrong end, and negative.",
    ),
    _health(
        "uptime-since-1970",
        "round(time.monotonic() - state.began, 3)",
        "time.time()",
        probe="health.report",
        what="The uptime is a time, not a duration.",
    ),
    _health(
        "no-services",
        "services={name: Part(status=each) for name, each in parts.items()}",
        "services={}",
        probe="health.report",
        what="The report names no part of the service.",
    ),
    _health(
        "redis-not-named",
        '        "redis": Status.HEALTHY if redis else Status.DEGRADED,\n',
        "",
        probe="health.report",
        what="One of the services that are needed is not in the report.",
    ),
    _health(
        "another-word",
        '    HEALTHY = "healthy"\n',
        '    HEALTHY = "HEALTHY_OK"\n',
        probe="health.status",
        what="The status is a word that nobody has agreed upon.",
    ),
    _health(
        "readiness-with-pid",
        _READY,
        'return JSONResponse({"status": status, "pid": os.getpid()}, '
        "200 if is_ready else 503)",
        probe="health.public",
        what="The readiness answer names the id of the process.",
    ),
    _health(
        "readiness-with-warnings",
        '    status = "ready" if is_ready else "not ready"\n',
        '    status = f"ready (pool: {state.database.statistics()})"\n',
        probe="health.public",
        what="The readiness answer holds the text of a warning.",
    ),
    _health(
        "readiness-with-execution-id",
        _READY,
        'return JSONResponse({"status": status, "execution_id": state.began}, '
        "200 if is_ready else 503)",
        probe="health.public",
        what="The readiness answer names the id of the execution.",
    ),
    _health(
        "liveness-with-version",
        'can."""\n    return Simple(status="ok")',
        'can."""\n    return Simple(status=f"ok, Python {sys.version}")',
        probe="health.public",
        what="The liveness answer names the version of Python.",
    ),
)
