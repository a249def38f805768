"""docs/configuration.md, written from the settings model: `python -m` prints it."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from opskit.config import ENVIRONMENT_PREFIX, Settings
from opskit.config.types import format_duration

# Keys and sections that are read and checked although nothing acts on them so far.
NOT_ACTED_ON_YET = (
    "databases.schedule",
    "databases.max_age",
    "files.schedule",
    "files.max_age",
    "scheduler",
)

EXAMPLE = """\
[databases.shop]                        # "shop" is the name of the source
url = "postgresql://ops@db.example/shop"
# url_file = "/run/secrets/shop-url"    # instead of url: a file that holds it
exclude_tables = ["public.scratch_*"]   # pg_dump patterns: no table, no rows
exclude_table_data = ["public.cache"]   # the table, but not its rows

[stores.local]                          # every set goes to every store named
url = "file:///var/backups/opskit"      # the folder must exist

[stores.offsite]                        # credentials the AWS way, never here
url = "s3://acme-backups/prod"
endpoint_url = "https://s3.example.net" # left out for AWS
object_lock_days = 0

[files.state]                           # a folder of state files
path = "/var/lib/app/state"
lock = "/var/lib/app/state.lock"        # the file that its service locks
retention = { keep_last = 10 }          # in place of [retention]

[retention]                             # a set stays if any rule keeps it
keep_last = 7
keep_within = "30d"
keep_monthly = 12
min_keep = 2                            # never fewer good sets than this

[drill]                                 # restore uses jobs, timeout, work_dir too
work_dir = "/var/tmp"                   # room for the dump and for a whole copy
timeout = "12h"

[[drill.queries]]                       # your own question to the restored copy
name = "there are orders"
sql = "SELECT count(*) > 0 FROM public.orders"
expect = true
database = "shop"
"""

_HEAD = f"""\
# Configuration

<!-- Written from the settings model: do not edit. CONTRIBUTING.md tells how. -->

opskit reads `opskit.toml` in the working directory, or the file that `OPSKIT_CONFIG`
names. An unknown key, a wrong type or an impossible value is refused with exit code 2
before anything is touched.

```toml
{EXAMPLE}```

## The environment

Every key can be set by an environment variable, which wins over the file. The tables
below give its name: `{ENVIRONMENT_PREFIX}`, section and key, joined by two underscores.

- `NAME` stands for the name that you gave a database, a folder or a store, in
  capitals. A name with `-` makes a variable that most shells cannot set.
- A list is written as JSON: `OPSKIT_DATABASES__SHOP__EXCLUDE_TABLES='["public.x"]'`.
- A variable that begins with `{ENVIRONMENT_PREFIX}` and names no section is refused.
  `OPSKIT_CONFIG` and `OPSKIT_DEBUG` (set to anything, it shows the traceback of an
  unexpected error) are no keys.
- PostgreSQL's own variables (`PGPASSFILE`, `PGPASSWORD`, `PGSERVICEFILE` and so on)
  hold for whatever the URL leaves out; so do AWS's (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`
  and so on) for [the credentials of stores](stores.md#credentials), which have no key.

## How values are written

- A duration is a whole number and a unit, `s`, `m`, `h`, `d` or `w`: `"90s"`, `"26h"`.
- `state_dir` is relative to the folder of the configuration, other paths to the working
  directory: write those as absolute paths.
- A size is a whole number of bytes, or one with `k`, `m`, `g` or `t`: `"20m"` is
  20 MiB.
- The name of a database, a folder or a store is 1 to 63 lower-case letters, digits, `_`
  and `-`, and begins with a letter or a digit.
"""

_NAMES: dict[object, str] = {
    str: "text",
    SecretStr: "text, never shown",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    timedelta: "duration",
    Any: "value",
}
_BOUNDS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"))


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A part of the file; `path` and `variable` are what its keys' names begin with."""

    title: str
    path: str
    variable: str | None
    model: type[BaseModel]
    fields: dict[str, FieldInfo]


def render() -> str:
    """Return the text of docs/configuration.md."""
    return _HEAD + "".join(map(_render_section, _sections()))


def keys() -> set[str]:
    """Return every key and section, with dots, as `NOT_ACTED_ON_YET` writes them."""
    sections = _sections()
    names = {_join(each.path, name) for each in sections for name in each.fields}
    return names | {each.path for each in sections if each.path}


def _sections() -> list[_Section]:
    plain: dict[str, FieldInfo] = {}
    found: list[_Section] = []
    for name, field in Settings.model_fields.items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        if typing.get_origin(field.annotation) is dict:
            model = typing.get_args(field.annotation)[1]
            found += _of(model, f"[{name}.NAME]", name, f"{variable}__NAME")
        elif (model := _model(field.annotation)) is not None:
            found += _of(model, f"[{name}]", name, variable)
        else:
            plain[name] = field
    # First, because a key that follows a section's head belongs to that section.
    top = _Section(
        title="At the top of the file, before any section",
        path="",
        variable=None,
        model=Settings,
        fields=plain,
    )
    return [top, *found]


def _of(
    model: type[BaseModel], title: str, path: str, variable: str | None
) -> Iterator[_Section]:
    yield _Section(
        title=f"`{title}`",
        path=path,
        variable=variable,
        model=model,
        fields=model.model_fields,
    )
    for name, field in model.model_fields.items():
        for argument in typing.get_args(field.annotation):
            if (listed := _model(argument)) is not None:
                below = _join(path, name)
                yield from _of(listed, f"[[{below}]]", below, None)


def _model(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _render_section(section: _Section) -> str:
    about = "" if section.model is Settings else f"{section.model.__doc__}\n"
    if section.path in NOT_ACTED_ON_YET:
        about += "Read and checked, but nothing acts on this section yet.\n"
    rows = "".join(
        f"| `{name}` | {_type(field.annotation, field)} | {_default(field)} | "
        f"{_variable(section, name)} | {_meaning(section, name, field)} |\n"
        for name, field in section.fields.items()
    )
    return (
        f"\n## {section.title}\n\n{about}"
        + ("\n" if about else "")
        + "| key | type | default | environment | meaning |\n"
        + "|---|---|---|---|---|\n"
        + rows
    )


def _variable(section: _Section, name: str) -> str:
    if section.model is Settings:
        return f"`{ENVIRONMENT_PREFIX}{name.upper()}`"
    if section.variable is None:
        return "the whole list, as JSON"
    return f"`{section.variable}__{name.upper()}`"


def _meaning(section: _Section, name: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    if _join(section.path, name) in NOT_ACTED_ON_YET:
        meaning += "; read and checked, but nothing acts on it yet"
    return meaning


def _type(annotation: object, field: FieldInfo | None = None) -> str:
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " or ".join(f'`"{each}"`' for each in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(
            _type(each) for each in arguments if each is not types.NoneType
        )
    if origin is list:
        # "list of texts", "list of lists of values"
        listed, *rest = _type(arguments[0]).split(" of ", maxsplit=1)
        return " of ".join(["list", f"{listed}s", *rest])
    if origin is dict:
        return f"table of {_type(arguments[1])}s by name"
    if (model := _model(annotation)) is not None:
        return f"{model.__name__.lower()} table"
    bounds = [
        f"{words} {getattr(each, bound)}"
        for each in (field.metadata if field else ())
        for bound, words in _BOUNDS
        if isinstance(getattr(each, bound, None), int)
    ]
    return ", ".join([_NAMES[annotation], *bounds])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value: object = field.get_default(call_default_factory=True)
    return "none" if value is None else f"`{json.dumps(value, default=_text)}`"


def _text(value: object) -> str:
    # A secret's own text hides it.
    return format_duration(value) if isinstance(value, timedelta) else str(value)


if __name__ == "__main__":
    print(render(), end="")
