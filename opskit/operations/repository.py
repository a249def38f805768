"""The files of opskit in the repository of a service, made of a person's answers."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr

from opskit import __version__
from opskit.config import ENVIRONMENT_PREFIX, Settings
from opskit.errors import UsageError
from opskit.files import documents
from opskit.postgres.parameters import holds_secret

DEPLOYERS = ("local", "railway", "command", "none")
RUNNERS = ("scheduler", "github", "both")
CONFIGURATION = "opskit.toml"
TASKS = "tasks.py"
_TEST = re.compile(r"^def test\b|name=.test\b", re.MULTILINE)
_JOB_TEST = re.compile(r"^  test:\n.*?^(?=  \w)|^ +needs: test\n", re.M | re.S)
_SCHEDULE = "0 9 * * *"

_TASKS = '''\
"""The tasks of opskit, for Invoke."""

from opskit.tasks import namespace

__all__ = ["namespace"]
'''
# The workflow of releases begins with the tests.
_TASKS_WITH_TEST = '''\
"""The tasks of opskit, for Invoke, and the tests of the service."""

from invoke import task
from opskit.tasks import namespace

__all__ = ["namespace"]


@task
def test(context):
    """Run the tests of the service; a release needs them to pass."""
    context.run("python -m pytest")


namespace.add_task(test)
'''
_HEAD = """\
# Written by `opskit init`; docs/configuration.md of opskit lists every key.
# It holds no secrets: .env.example lists the variables for them.
"""
_DEPLOYER = {
    "local": """
[release.local]
# folder = "/srv/app"                     # holds releases/VERSION and the link current
# prepare = ["/srv/app/prepare"]          # makes the folder of a version
# restart = ["systemctl", "restart", "app"]
""",
    "railway": """
[release.railway]
# service = "id-of-the-service"           # its token: see .env.example
""",
    "command": """
[release.command]
# deploy = ["./deploy", "begin"]          # begins a deployment, and prints its id
# status = ["./deploy", "status"]         # prints its status
# current = ["./deploy", "current"]       # prints the version that is deployed
""",
}
_MIGRATIONS = """
# [release.migrations]
# tool = "alembic"                        # alembic, sql or command
# database = {database}
"""
_ENVIRONMENT_HEAD = """\
# Secrets, and what differs from one machine to another. opskit reads them from the
# environment. For a shell: copy this file to .env, fill in what you need, then
#   set -a; . ./.env; set +a
# Each can also lie in a file of its own: see url_file, token_file and the like in
# docs/configuration.md of opskit.
"""
_AWS = """
# The credentials of the store
#AWS_ACCESS_KEY_ID=''
#AWS_SECRET_ACCESS_KEY=''
#AWS_DEFAULT_REGION=''
"""
# What YAML reads as a text without quotes.
_PLAIN = re.compile(r"(?!(?:null|true|false|yes|no|on|off|y|n)$)[a-z][a-z_-]*")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What is backed up and to where, and how it is deployed and run.

    `store` is a URL; the `endpoint` is that of an S3-compatible server.
    """

    databases: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    store: str
    endpoint: str = ""
    deployer: str = "none"
    run: str = "both"

    @property
    def store_folder(self) -> Path | None:
        """The folder of the store, if it is one and no bucket."""
        on_s3 = self.store.startswith("s3://")
        return None if on_s3 else Path(self.store.removeprefix("file://"))

    @property
    def on_github(self) -> bool:
        """Whether GitHub's workflows run it."""
        return self.run != "scheduler"


def read_answers(
    folder: Path,
    *,
    databases: Sequence[str],
    folders: Sequence[str],
    store: str,
    endpoint: str = "",
    deployer: str = "",
    run: str = "",
) -> Answers:
    """Return the answers in texts; a store that is a path is taken from `folder`.

    Raises:
        UsageError: one is missing or not possible.
    """
    missing = [] if databases or folders else ["--database or --files"]
    if missing := missing + ([] if store else ["--store"]):
        raise UsageError(
            f"missing: {' and '.join(missing)}",
            hint="For instance `inv init --database shop=postgresql://ops@db.example/"
            "shop --store s3://acme-backups/prod`. On a terminal, it asks.",
        )
    one_of("deployer", DEPLOYERS)(deployer or "none")
    one_of("run", RUNNERS)(run := run or ("both" if databases else "scheduler"))
    if (run == "github" and folders) or (run != "scheduler" and not databases):
        raise UsageError(
            "GitHub's machines cannot back up your folders, only databases",
            hint="Let the scheduler do it: give --run scheduler, or --run both with a "
            "--database.",
        )
    if "://" not in store:
        store = "file://" + os.path.normpath(folder / os.path.expanduser(store))
    if store.removeprefix("file://").rstrip("/") == str(folder):
        raise UsageError(
            "the store would be the repository itself",
            hint="Name a folder for it alone, outside of the repository.",
        )
    return Answers(
        databases=_by_name(map(named_database, databases)),
        folders=_by_name(map(named, folders)),
        store=store,
        endpoint=endpoint,
        deployer=deployer or "none",
        run=run,
    )


def one_of(flag: str, words: Sequence[str]) -> Callable[[str], None]:
    """Return what refuses all but these words, by a UsageError."""

    def check(text: str) -> None:
        if text not in words:
            raise UsageError(
                f"{flag} cannot be {text!r}", hint=f"Name one of: {', '.join(words)}."
            )

    return check


def named_database(text: str) -> tuple[str, str]:
    """Return the name and the URL of `NAME=URL`.

    Raises:
        UsageError: it has not this form, or the URL holds a password.
    """
    name, url = named(text)
    if holds_secret(url):
        raise UsageError(
            f"the URL of {name} holds a password, which may not lie in {CONFIGURATION}",
            hint="Leave it out: passwords come from PGPASSFILE, or from "
            f"{ENVIRONMENT_PREFIX}DATABASES__{name.upper()}__URL in the environment.",
        )
    return name, url


def named(text: str) -> tuple[str, str]:
    """Return the name and the value of `NAME=VALUE`.

    Raises:
        UsageError: it has not this form. The text, maybe with a password, is not shown.
    """
    name, _, value = text.partition("=")
    if not value or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name):
        raise UsageError(
            "what is to be backed up has the form NAME=URL or NAME=PATH",
            hint="A name has small letters, digits, _ and -, and begins with a letter "
            "or a digit.",
        )
    return name, value


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise UsageError(f"{name} is given twice", hint="Give each its own name.")
    return found


def contents(answers: Answers, own_tasks: str | None) -> dict[str, str]:
    """Return the text of each file, by its path in the repository.

    `own_tasks` is the text of a file of tasks that stays.
    """
    has_release = answers.on_github and answers.deployer != "none"
    texts = {
        CONFIGURATION: configuration(answers),
        TASKS: _TASKS_WITH_TEST if has_release else _TASKS,
        ".env.example": environment(answers),
    }
    if answers.on_github:
        texts["requirements-opskit.txt"] = (
            f"opskit-postgres[embedded,release]=={__version__}\n"
        )
        has_test = own_tasks is None or _TEST.search(own_tasks) is not None
        texts |= _workflows(answers, has_test=has_test)
    for path in _documents("runbooks/*.md"):
        # The game days in the list are those of opskit itself.
        text, _, _ = path.read_text(encoding="utf-8").partition("\n## Game days\n")
        texts[f"runbooks/{path.name}"] = text
    return texts


def configuration(answers: Answers) -> str:
    """Return the text of opskit.toml."""
    schedule = {"schedule": _SCHEDULE} if answers.run != "github" else {}
    sections = {
        f"databases.{name}": {"url": url} | schedule
        for name, url in answers.databases.items()
    }
    for name, path in answers.folders.items():
        sections[f"files.{name}"] = {"path": path} | schedule
    endpoint = {"endpoint_url": answers.endpoint} if answers.endpoint else {}
    store = "local" if answers.store_folder else "offsite"
    sections[f"stores.{store}"] = {"url": answers.store} | endpoint
    text = _HEAD
    for name, keys in sections.items():
        lines = "".join(f"{key} = {_quoted(value)}\n" for key, value in keys.items())
        text += f"\n[{name}]\n{lines}"
    return text + _release(answers)


def _release(answers: Answers) -> str:
    if answers.deployer == "none":
        return ""
    database = _quoted(next(iter(answers.databases), "shop"))
    return (
        "\n[smoke]\n"
        '# url = "https://app.example"            # the address of your service\n'
        f"\n[release]\ndeployer = {_quoted(answers.deployer)}\n"
        + _DEPLOYER[answers.deployer]
        + _MIGRATIONS.format(database=database)
    )


def _quoted(text: str) -> str:
    """Return a printable text as TOML and YAML write it in quotes."""
    return json.dumps(text, ensure_ascii=False)


def environment(answers: Answers) -> str:
    """Return the text of .env.example: every secret of the settings, none filled in."""
    names = {"databases": answers.databases}
    text = _ENVIRONMENT_HEAD + ("" if answers.store_folder else _AWS)
    for variable, about in _secrets(Settings, [], names):
        lines = textwrap.wrap(about, 84, initial_indent="# ", subsequent_indent="# ")
        text += "\n" + "\n".join(lines) + f"\n#{variable}=''\n"
    return text


def _secrets(
    model: type[BaseModel], path: Sequence[str], names: Mapping[str, Iterable[str]]
) -> Iterator[tuple[str, str]]:
    """Yield the variables that hold a secret, and what each is."""
    for name, each in model.model_fields.items():
        kinds = (each.annotation, *get_args(each.annotation))
        if SecretStr in kinds:
            form = ", as JSON" if get_origin(each.annotation) else ""
            about = f"[{'.'.join(path)}] {name}{form}: {each.description}"
            yield ENVIRONMENT_PREFIX + "__".join([*path, name]).upper(), about
        for inner in filter(_is_section, kinds):
            if get_origin(each.annotation) is None:
                yield from _secrets(inner, [*path, name], names)
            for own in names.get(name, ()):
                if "-" not in own:  # a shell has no such variables
                    yield from _secrets(inner, [*path, name, own], names)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _workflows(answers: Answers, *, has_test: bool) -> dict[str, str]:
    """Return the workflows, with the databases in their matrix.

    Without a task `test` there is no job that runs it.
    """
    listed = ", ".join(
        name if _PLAIN.fullmatch(name) else _quoted(name) for name in answers.databases
    )
    texts = {}
    for path in _documents("workflows/*.yml"):
        if answers.deployer == "none" and path.stem in ("release", "smoke"):
            continue
        text = path.read_text(encoding="utf-8")
        if not has_test:
            text = _JOB_TEST.sub("", text).replace("[test, staging]", "staging")
        texts[f".github/workflows/{path.name}"] = re.sub(
            r"(?m)^( +source: )\[shop\]$", rf"\1[{listed}]", text
        )
    return texts


def _documents(pattern: str) -> list[Path]:
    return sorted(documents().glob(pattern))
