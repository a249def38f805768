"""Versions of the example service that a release meets: good, bad, with migrations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.defects.defect import Edit

_REVISION = '''\
"""{title}."""

import hashlib
import json
from pathlib import Path

from alembic import op

revision = "{id}"
down_revision = "{below}"
phase = "{phase}"


def upgrade():
    """Apply it."""
{up}


def downgrade():
    """Take it back."""
{down}
'''
_RECORDS = [{"key": f"k{number}", "value": number * 7} for number in range(300)]


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A revision: what it does, as the body of a function, and what takes it back."""

    title: str
    up: str
    down: str = "pass"
    phase: str = "expand"


@dataclass(frozen=True, kw_only=True)
class Version:
    """Changes of the source, migrations after those of the example, other files."""

    edits: tuple[Edit, ...] = ()
    migrations: tuple[Migration, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def apply(self, folder: Path) -> None:
        """Make a copy of the service this version."""
        for edit in self.edits:
            edit.apply(folder)
        versions = folder / "migrations" / "versions"
        last = len([*versions.glob("r*.py")])
        for number, each in enumerate(self.migrations, start=last + 1):
            text = _REVISION.format(
                title=each.title,
                id=f"{number:04}",
                below=f"{number - 1:04}",
                phase=each.phase,
                up=_indented(each.up),
                down=_indented(each.down),
            )
            (versions / f"r{number:04}_more.py").write_text(text)
        for name, text in self.files.items():
            (folder / name).write_text(text)


def _indented(body: str) -> str:
    return "\n".join(f"    {line}" for line in body.strip().splitlines())


def sql(title: str, up: str, down: str = "", *, phase: str = "expand") -> Migration:
    """Return a migration of SQL statements."""
    return Migration(
        title=title,
        up="\n".join(f"op.execute({each!r})" for each in up.split(";")),
        down=f"op.execute({down!r})" if down else "pass",
        phase=phase,
    )


ADDS = sql(
    "adds a column",
    "ALTER TABLE tasks ADD priority int",
    "ALTER TABLE tasks DROP priority",
)
# In production only, and beside reads and writes: long enough to be cut short.
_SLOWLY = "SELECT pg_sleep(CASE current_database() WHEN 'service' THEN 0 ELSE 4 END)"
ADDS_SLOWLY = sql(
    "adds a table, slowly",
    f"CREATE TABLE labels (id int PRIMARY KEY); {_SLOWLY}",
    "DROP TABLE labels",
)
CONTRACTS = sql(
    "adds a comment in the contract phase",
    f"COMMENT ON TABLE tasks IS 'what is to be done'; {_SLOWLY}",
    "COMMENT ON TABLE tasks IS NULL",
    phase="contract",
)
REWRITES = sql(
    "rewrites a table",
    "ALTER TABLE api_keys ALTER prefix TYPE varchar(100)",
    "ALTER TABLE api_keys ALTER prefix TYPE text",
)
_ENDS = Edit(
    file="service/__main__.py",
    old='    if given.command == "serve":\n',
    new='    if given.command == "serve":\n        sys.exit("a setting is missing")\n',
)
_HANGS = Edit(
    file="service/__main__.py",
    old='    if given.command == "serve":\n',
    new="""\
    if given.command == "serve":
        import time
        if not Path("started").exists():
            Path("started").touch()
            time.sleep(600)
""",
)
_HANGS_AND_ENDS = replace(
    _HANGS, new=_HANGS.new + '        sys.exit("a setting is missing")\n'
)
_WRONG = Edit(file="service/tasks.py", old="FROM tasks WHERE owner_id = %(owner)s", new="FROM task WHERE owner_id = %(owner)s")  # fmt: skip
_SLOW = Edit(
    file="service/tasks.py",
    old='    """Return the account\'s tasks in the order of their ids."""\n',
    new="    import asyncio\n    await asyncio.sleep(3)\n",
)
_LOADS = """
text = Path(__file__).parents[2].joinpath("settings.json").read_bytes()
records = json.loads(text)
if hashlib.sha256(text).hexdigest() != "{digest}":
    raise ValueError("settings.json is not what this migration was written for")
op.execute("CREATE TABLE settings (key text PRIMARY KEY, value int NOT NULL)")
there = op.get_bind()
for each in records:
    there.exec_driver_sql(
        "INSERT INTO settings VALUES (%s, %s)", (each["key"], each["value"])
    )
count = there.exec_driver_sql("SELECT count(*), sum(value) FROM settings").one()
if tuple(count) != (len(records), sum(each["value"] for each in records)):
    raise ValueError("not all records came into the table")
"""


def _from_json(text: str) -> Version:
    digest = hashlib.sha256(json.dumps(_RECORDS).encode()).hexdigest()
    loads = Migration(
        title="moves settings from a JSON file into a table",
        up=_LOADS.format(digest=digest),
        down='op.execute("DROP TABLE settings")',
    )
    return Version(migrations=(loads,), files={"settings.json": text})


SAME = Version()
GOOD = Version(migrations=(ADDS,))
SLOWLY = Version(migrations=(ADDS_SLOWLY,))
IN_PHASES = Version(migrations=(ADDS_SLOWLY, CONTRACTS))
ENDING = Version(edits=(_ENDS,))
HANGING_ONCE = Version(edits=(_HANGS,))
HANGING_AND_ENDING = Version(edits=(_HANGS_AND_ENDS,))
NOT_STARTING = Version(edits=(_ENDS,), migrations=(ADDS,))
WRONG = Version(edits=(_WRONG,), migrations=(ADDS,))
SLOW = Version(edits=(_SLOW,), migrations=(ADDS,))
HALF_WAY = Version(
    migrations=(
        ADDS,
        sql(
            "checks what production does not keep",
            "CREATE TABLE half (id int); "
            "ALTER TABLE tasks ADD CONSTRAINT short CHECK (length(title) < 100)",
            "ALTER TABLE tasks DROP CONSTRAINT short; DROP TABLE half",
        ),
    )
)
LOCKING = Version(
    migrations=(
        sql(
            "holds a lock",
            "ALTER TABLE tasks ADD priority int; SELECT pg_sleep(2)",
            "ALTER TABLE tasks DROP priority",
        ),
    )
)
REWRITING = Version(migrations=(REWRITES,))
REWRITING_WRONG = Version(edits=(_WRONG,), migrations=(REWRITES,))
DESTRUCTIVE = Version(
    migrations=(
        sql(
            "drops a column",
            "ALTER TABLE tasks DROP legacy",
            "ALTER TABLE tasks ADD legacy text",
            phase="contract",
        ),
    )
)
RENAMING_WRONG = Version(
    edits=(_WRONG,),
    migrations=(
        sql(
            "renames a column",
            "ALTER TABLE tasks RENAME due_at TO due",
            "ALTER TABLE tasks RENAME due TO due_at",
        ),
    ),
)
FROM_JSON = _from_json(json.dumps(_RECORDS))
FROM_CUT_JSON = _from_json(json.dumps(_RECORDS[:-1]))
