"""Cases: each version and each fault that a release meets, and how it must end."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass

from opskit.postgres.connect import connect
from tests.releases import versions
from tests.releases.site import LOCAL, Site
from tests.releases.versions import Version
from tests.support import execute

RELEASE = ("release", "--version", "2")
_ACCEPT = 'accept = [{{ warning = "{warning}", reason = "tried in a campaign" }}]'
_REWRITES = "budgets = { rewrites = true }\n" + _ACCEPT.format(
    warning="changing-column-type"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is done on a site, and what must come of it.

    `codes` are the exit codes of opskit in their order, `version` runs in the end, and
    `schema` is the newest migration.
    """

    name: str
    codes: tuple[int, ...]
    version: str
    schema: str
    act: Callable[[Site], None]


CASES: dict[str, Case] = {}


def _case(
    name: str, *codes: int, version: str, schema: str
) -> Callable[[Callable[[Site], None]], Callable[[Site], None]]:
    def add(act: Callable[[Site], None]) -> Callable[[Site], None]:
        CASES[name] = Case(
            name=name, codes=codes, version=version, schema=schema, act=act
        )
        return act

    return add


def _released(
    name: str,
    released: Version,
    code: int,
    version: str,
    schema: str,
    release: str = "",
) -> None:
    @_case(name, code, version=version, schema=schema)
    def _act(site: Site) -> None:
        site.check_out(released)
        site.configure(release=release)
        site.run(*RELEASE)


_released("good", versions.GOOD, 0, "2", "0004")
_released("good, deployed first", versions.GOOD, 0, "2", "0004", 'order = "deploy-first"')  # fmt: skip
_released("without migrations", versions.SAME, 0, "2", "0003")
_released("does not start", versions.NOT_STARTING, 60, "1", "0004")
_released("answers wrong", versions.WRONG, 60, "1", "0004")
_released("answers slowly", versions.SLOW, 60, "1", "0004")
_released("migration holds a lock for long", versions.LOCKING, 62, "1", "0003")
_released("migration rewrites a table", versions.REWRITING, 62, "1", "0003")
_released("migration rewrites a table, which is accepted", versions.REWRITING, 0, "2", "0004", _REWRITES)  # fmt: skip
_released("the same, and the version answers wrong", versions.REWRITING_WRONG, 60, "1", "0003", _REWRITES)  # fmt: skip
_released("migration breaks the old version", versions.RENAMING_WRONG, 62, "1", "0003")
_released("migration loads a JSON file", versions.FROM_JSON, 0, "2", "0004")
_released("migration loads a damaged JSON file", versions.FROM_CUT_JSON, 62, "1", "0003")  # fmt: skip


@_case("good, and taken back", 0, 0, version="1", schema="0004")
def _taken_back(site: Site) -> None:
    site.check_out(versions.GOOD)
    site.run(*RELEASE)
    site.run("rollback")


@_case("migration drops a column in the end; taken back", 0, 69, version="2", schema="0004")  # fmt: skip
def _destructive(site: Site) -> None:
    site.check_out(versions.DESTRUCTIVE)
    site.run(*RELEASE)
    document = site.run("rollback")
    assert "restore" in document["hint"], document


@_case("migration breaks the old version, which is accepted, and the new one answers wrong", 69, version="2", schema="0004")  # fmt: skip
def _no_way_back(site: Site) -> None:
    site.check_out(versions.RENAMING_WRONG)
    site.configure(release=_ACCEPT.format(warning="renaming-column"))
    document = site.run(*RELEASE)
    assert "restore" in document["hint"], document


@_case("migration fails half-way in production only", 60, version="1", schema="0004")
def _half_way(site: Site) -> None:
    execute(site.url, "UPDATE public.tasks SET title = repeat('x', 150) WHERE id = 1")
    site.check_out(versions.HALF_WAY)
    site.run(*RELEASE)


@_case("a transaction holds the table", 60, version="1", schema="0003")
def _held(site: Site) -> None:
    site.check_out(versions.GOOD)
    with connect(site.url, purpose="holder", autocommit=False) as holder:
        holder.execute("LOCK TABLE public.tasks IN ACCESS SHARE MODE")
        site.run(*RELEASE)


@_case("database lost in mid-migration, and back", 69, 0, version="1", schema="0003")
def _database_lost(site: Site) -> None:
    site.check_out(versions.SLOWLY)
    process = site.start(*RELEASE)
    site.await_migration(process)
    with site.database_away():
        site.end(process)
    site.run("rollback")


@_case("database lost in mid-migration, and back at once", 60, version="1", schema="0003")  # fmt: skip
def _database_blinks(site: Site) -> None:
    site.check_out(versions.SLOWLY)
    process = site.start(*RELEASE)
    site.await_migration(process)
    with site.database_away():
        pass
    site.end(process)


# Deploys nothing, and calls it done unless it is version 2.
_NEVER = """
deploy = ["sh", "-c", "echo $OPSKIT_VERSION"]
status = ["sh", "-c", "test $OPSKIT_DEPLOYMENT = 1 && echo SUCCESS || echo BUILDING"]
current = ["echo", "1"]
"""


def _with_command(site: Site, commands: str) -> None:
    """Have a tool deploy, which may say what is not so."""
    site.configure(
        deployer='deployer = "command"\n[release.command]\ndeadline = "3s"\n'
        + commands,
        deadline="10s",
    )


@_case("a deployment that never ends", 60, version="1", schema="0004")
def _never_ends(site: Site) -> None:
    site.check_out(versions.GOOD)
    _with_command(site, _NEVER)
    site.run(*RELEASE)


@_case("a deployer says success and runs the old code", 60, version="1", schema="0004")  # fmt: skip
def _old_code(site: Site) -> None:
    site.check_out(versions.GOOD)
    said = site.folder / "said"
    said.write_text("1")
    deploy = f'deploy = ["sh", "-c", "echo $OPSKIT_VERSION | tee {said}"]'
    status = 'status = ["echo", "SUCCESS"]'
    _with_command(site, f'{deploy}\n{status}\ncurrent = ["cat", "{said}"]')
    site.run(*RELEASE)


@_case("two releases at once", 11, 0, version="2", schema="0004")
def _two(site: Site) -> None:
    site.check_out(versions.GOOD)
    process = site.start(*RELEASE)
    site.await_step(process, "rehearse")
    document = site.run("release", "--version", "3")
    assert "release" in document["error"], document
    site.end(process)


@_case("a version that does not exist", 62, version="1", schema="0003")
def _missing(site: Site) -> None:
    site.configure(deployer=LOCAL.partition("prepare")[0])
    site.run(*RELEASE)


@_case("the version that runs already", 62, version="1", schema="0003")
def _already(site: Site) -> None:
    site.run("release", "--version", "1")


@_case("no drilled set", 62, version="1", schema="0003")
def _no_set(site: Site) -> None:
    site.check_out(versions.GOOD)
    shutil.rmtree(site.folder / "store" / "service")
    site.run(*RELEASE)


@_case("a drilled set that is too old", 62, version="1", schema="0003")
def _old_set(site: Site) -> None:
    site.check_out(versions.GOOD)
    site.configure(release='restore_point_age = "1s"')
    site.run(*RELEASE)


@_case("a person has edited the class of a migration in the ledger, and takes it back", 0, 62, version="2", schema="0004")  # fmt: skip
def _edited(site: Site) -> None:
    site.check_out(versions.DESTRUCTIVE)
    site.run(*RELEASE)
    ledger = site.folder / ".opskit" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"destructive"', '"additive"'))
    site.run("rollback")


@_case("a rollback target that is gone", 0, 62, version="2", schema="0004")
def _gone(site: Site) -> None:
    site.check_out(versions.GOOD)
    site.run(*RELEASE)
    shutil.rmtree(site.folder / "releases" / "1")
    site.configure(deployer=LOCAL.partition("prepare")[0])
    site.run("rollback")


@_case("a rollback that fails", 69, version="2", schema="0004")
def _failing(site: Site) -> None:
    site.check_out(versions.WRONG)
    process = site.start(*RELEASE)
    site.await_step(process, "smoke")
    shutil.move(site.folder / "releases" / "1", site.folder / "elsewhere")
    (site.folder / "releases" / "1").write_text("not a folder")
    site.end(process)


@_case("a pool in transaction mode", 62, version="1", schema="0003")
def _pool(site: Site) -> None:
    site.check_out(versions.GOOD)
    with site.pooled() as url:
        site.configure(url=url)
        site.run(*RELEASE)


STEPS = (
    "preflight",
    "restore point",
    "rehearse",
    "baseline smoke",
    "migrate",
    "deploy",
    "smoke",
    "contract",
)


def _stopped(step: str, how: signal.Signals, *then: str) -> Callable[[Site], None]:
    def act(site: Site) -> None:
        is_last = step == "contract"
        site.check_out(versions.IN_PHASES if is_last else versions.SLOWLY)
        process = site.start(*RELEASE)
        site.await_step(process, step)
        if step in ("migrate", "contract"):
            site.await_migration(process)
        process.send_signal(how)
        site.end(process)
        site.run(*then)

    return act


# The newest migration after the release was taken up again, or taken back.
_RESUMED = dict.fromkeys(STEPS, "0004") | {"contract": "0005"}
_TAKEN_BACK = _RESUMED | dict.fromkeys(STEPS[: STEPS.index("migrate")], "0003")


for _step in STEPS:
    for _how, _code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        _words = f"{_how.name} in the step {_step}, then"
        _case(f"{_words} --resume", _code, 0, version="2", schema=_RESUMED[_step])(
            _stopped(_step, _how, "release", "--resume")
        )
        _there = _TAKEN_BACK[_step]
        _back = 62 if _there == "0003" else 0
        # An interrupted run ends the tool; one that is killed leaves it to go on.
        if _how is signal.SIGINT:
            _there = {"migrate": "0003", "contract": "0004"}.get(_step, _there)
        _case(f"{_words} rollback", _code, _back, version="1", schema=_there)(
            _stopped(_step, _how, "rollback")
        )
