"""The documents: every file, metric, alert, probe, key, flag and variable they name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from development.configuration_docs import Section, sections
from opskit.config.watch import SloSettings
from opskit.postgres.servers.throwaway import SUPERUSER
from opskit.tasks.arguments import general_flags
from tasks import namespace
from tests.defects import document
from tests.unit.documents import COPIED, DOCUMENTS, INLINE, ROOT, name_of, prose
from tests.unit.test_docs import exit_codes
from tests.unit.test_metric_names import exported
from tests.unit.test_rules import alerts

# Between opskit's own processes: no user sets or reads them.
_INTERNAL = {"OPSKIT_PASSWORD", "OPSKIT_SCHEDULED", "OPSKIT_SUPERUSER", "OPSKIT_TURN"}
_GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of names: how they are found in a text, and which there are.

    The name is what the groups of the pattern match, with a space between. `wrong` is a
    text with a name of the kind that does not exist. Each of `documented` must be named
    in a guide; `others` are names of users and of other programs.
    """

    kind: str
    pattern: str
    is_known: Callable[[str], object]
    wrong: str
    inline: bool = True
    documented: Iterable[str] = ()
    others: frozenset[str] = frozenset()

    def names(self, text: str) -> set[str]:
        """Return the names of this kind in a text: in its inline code, or anywhere."""
        parts = (
            [f"`{e}`" for e in INLINE.findall(prose(text))] if self.inline else [text]
        )
        found = re.finditer(self.pattern, "\n".join(parts), re.MULTILINE)
        return {" ".join(filter(None, each.groups())) for each in found}


@cache
def sources(*folders: str) -> str:
    """Return what folders hold but documents."""
    return "\n".join(
        path.read_text(encoding="utf-8")
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in ("", ".html", ".py", ".sql", ".toml", ".yml")
        and path.is_file()
        and path != Path(__file__)
        and "node_modules" not in path.parts
    )


def texts() -> str:
    """Return what opskit, its examples, its workflows and its tests are made of."""
    return sources("opskit", "examples", "workflows", "development", "tests")


@cache
def words() -> frozenset[str]:
    """Return the words in all that."""
    return frozenset(re.findall(r"\w+", texts()))


def variables() -> set[str]:
    """Return the variables that opskit and its tests read, but for those of settings."""
    found = re.findall(r"\bOPSKIT_[A-Z_]+[A-Z]\b", sources("opskit"))
    found += re.findall(r"\bTEST_OPSKIT_[A-Z_]+[A-Z]\b", sources(".ci", "tests"))
    return {each for each in found if "__" not in each} - _INTERNAL


@cache
def model() -> dict[str, Section]:
    """Return the sections of the configuration by their path, without names of users."""
    return {each.path: each for each in sections()}


def is_section(name: str) -> bool:
    """Return whether a section exists, one with a user's name in it included."""
    parent, _, last = name.rpartition(".")
    section = model().get(parent if parent else name)
    return name in model() or (
        section is not None and (last in section.fields or ".NAME]" in section.title)
    )


def is_key(section: str, key: str) -> bool:
    """Return whether a section that exists has a key."""
    found = model().get(section) or model()[section.rpartition(".")[0]]
    return not is_section(section) or key in found.fields


@cache
def settings_variables() -> re.Pattern[str]:
    """Return the form of the variables of all settings; users' names are open."""
    found = [f"OPSKIT_{key.upper()}" for key in model()[""].fields]
    for each in sections():
        if each.variable:
            section = each.variable.replace("NAME", r"\w+")
            found += [f"{section}__{key.upper()}" for key in each.fields]
    return re.compile("|".join(found))


def is_variable(name: str) -> bool:
    """Return whether the environment variable is a setting's, or a program reads it."""
    secrets = re.findall(r"secrets\.(\w+)", sources("workflows"))
    known = {*_VARIABLES, *secrets}
    return name in known or bool(settings_variables().fullmatch(name))


def exists(name: str) -> bool:
    """Return whether a file or folder exists; words in capitals stand for any name."""
    return any(ROOT.glob(re.sub(r"\b[A-Z]{3,}\b(?!\.md)", "*", name.rstrip("/"))))


def is_file_name(name: str) -> bool:
    """Return whether a file lies here or in opskit, or a program names it."""
    found = [*ROOT.glob(name), *(ROOT / "opskit").rglob(name)]
    return bool(found) or name in texts()


def has_module(name: str) -> bool:
    """Return whether Python finds a module."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def flags() -> set[str]:
    """Return the flags of all tasks."""
    contexts = [general_flags(), *namespace.to_contexts()]
    return {flag for each in contexts for flag in each.flag_names()}


def is_alert(name: str) -> bool:
    """Return whether there is an alert; dots and stars stand for any letters."""
    form = re.sub("[…*]", r"\\w*", name)
    return any(re.fullmatch(form, each) for each in _RULES)


def without_parts(metric: str) -> str:
    """Return the name of a metric without that of a part of a histogram."""
    return re.sub(r"_(bucket|count|sum)$", "", metric)


_PROBES = {e.name for several in document.explained().values() for e in several}
_FAMILIES = "|".join(document.explained())
_RULES = alerts()
_ALERTS = {re.sub(r"(Fast|Slow)Burn$", "…Burn", each) for each in _RULES}
_METRICS = exported()
_VARIABLES = variables()
_SLO = SloSettings()
_FOLDERS = r"docs|runbooks|workflows|opskit|tests|examples|benchmarks|development"

KINDS = (
    Kind(
        kind="file",
        pattern=rf"(?<![\w/.~-])((?:{_FOLDERS}|\.ci|\.github)/(?:[\w./-]*[\w/])?)",
        is_known=exists,
        wrong="see docs/nonsense.md",
        inline=False,
        others=frozenset([".github/workflows/actions.lock", "docs/evidence"]),
    ),
    Kind(
        kind="name of a file",
        pattern=r"^`([\w-]+\.(?:conf|json|jsonl|lock|md|py|service|sql|toml|txt|yml))`$",
        is_known=is_file_name,
        wrong="`nonsense.toml`",
        others=frozenset({"digest.py", "postgresql.conf"}),
    ),
    Kind(
        kind="module",
        pattern=r"\bpython3? -m (\w+(?:\.\w+)*)",
        is_known=has_module,
        wrong="    python -m tests.nonsense",
        others=frozenset(["app"]),
        inline=False,
    ),
    Kind(
        kind="metric",
        pattern=r"\b(opskit_[a-z]\w*[a-z]\b|(?:http|process)_\w+_(?:total|seconds|bytes)\w*)",
        is_known=lambda name: (
            without_parts(name)
            in {
                *_METRICS,
                SUPERUSER,
                "opskit_fleet",  # a schema
                _SLO.requests_metric,
                _SLO.latency_metric,
                "process_resident_memory_bytes",
            }
        ),
        wrong="opskit_nonsense_seconds",
        inline=False,
        documented=_METRICS,
    ),
    Kind(
        kind="alert",
        pattern=r"\b((?:Opskit(?!Error)|Service)[A-Z]\w*(?:…\w*|\*)?)",
        is_known=is_alert,
        wrong="OpskitNonsense",
        inline=False,
        documented=_ALERTS,
    ),
    Kind(
        kind="probe",
        pattern=rf"(?<![\w./\[])((?:{_FAMILIES})\.[a-z-]+)\b(?<!\.py)(?<!\.md)(?![.(])",
        is_known=lambda name: name in _PROBES,
        wrong='probe = "headers.nonsense"',
        inline=False,
        documented=_PROBES,
    ),
    Kind(
        kind="exit code",
        pattern=r"(?:exit codes? |exits? with |end(?:s|ed)? with |\bcode )(\d+)\b",
        is_known=lambda code: int(code) in exit_codes(),
        wrong="it ends with 99",
        inline=False,
    ),
    Kind(
        kind="section",
        pattern=r"^`\[([a-z_.]+)\]",
        is_known=is_section,
        wrong="`[smoke.nonsense]`",
        others=frozenset(["default"]),
    ),
    Kind(
        kind="key",
        pattern=r"`\[([a-z_.]+)\](?:` `| )(\w+)(?:`| =)",
        is_known=lambda name: is_key(*name.split(" ")),
        wrong="`[drill] nonsense`",
        inline=False,
    ),
    Kind(
        kind="key of a section",
        pattern=r"`(\w+)` (?:of|in) `\[([a-z_.]+)\]",
        is_known=lambda name: is_key(*reversed(name.split(" "))),
        wrong="`nonsense` in `[drill]`",
        inline=False,
    ),
    Kind(
        kind="variable",
        pattern=r"\b((?:TEST_)?OPSKIT_[A-Z](?:[A-Z_]*[A-Z])?)\b",
        is_known=is_variable,
        wrong="OPSKIT_NONSENSE",
        inline=False,
        documented=_VARIABLES,
    ),
    Kind(
        kind="flag",
        pattern=r"^`(--[a-z][a-z-]+)",
        is_known=lambda name: name in flags(),
        wrong="`--nonsense`",
        others=frozenset(
            [
                "--build-arg",
                "--cors",
                "--memory-sizes",
                "--no-server-header",
                "--section",
                "--sets",
                "--stdin",
                "--stdin-from-command",
                "--timeout",
                "--upgrade",
            ]
        ),
    ),
    Kind(
        kind="word",
        pattern=r"^`(?!opskit_)([a-z]+(?:_[a-z0-9]+)+)`$",
        is_known=lambda name: name in words(),
        wrong="`quite_nonsense`",
        others=frozenset(
            [
                "archive_mode",
                "no_new_privs",
                "old_key",
                "old_recipient",
                "pg_read_all_stats",
            ]
        ),
    ),
)
of_each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda each: each.kind)


@pytest.mark.parametrize("path", [*DOCUMENTS, *COPIED], ids=name_of)
def test_what_a_document_names_exists(path: Path) -> None:
    """Names of each kind, in documents, workflows and what else users copy."""
    text = path.read_text(encoding="utf-8")
    wrong = {
        kind.kind: names
        for kind in KINDS
        if (
            names := {e for e in kind.names(text) - kind.others if not kind.is_known(e)}
        )
    }

    assert wrong == {}


@of_each_kind
def test_a_wrong_name_is_noticed(kind: Kind) -> None:
    """Each kind finds names in the documents, and knows that another does not exist."""
    (wrong,) = kind.names(kind.wrong)

    assert not kind.is_known(wrong)
    assert any(kind.names(each.read_text(encoding="utf-8")) for each in DOCUMENTS)


@of_each_kind
def test_what_there_is_is_documented(kind: Kind) -> None:
    """In the README or a guide."""
    named = {
        name
        for path in _GUIDES
        for name in kind.names(path.read_text(encoding="utf-8"))
    }

    assert set(kind.documented) - named == set()


@of_each_kind
def test_no_name_of_others_is_kept_in_vain(kind: Kind) -> None:
    """One that no document has any more is taken out."""
    paths = [*DOCUMENTS, *COPIED]
    named = {e for path in paths for e in kind.names(path.read_text("utf-8"))}

    assert kind.others <= named


def test_a_key_that_a_message_names_exists() -> None:
    """In a hint or an error, where the words after the section can be a key's."""
    named = re.findall(r"\[([a-z_.]+)\] (\w+_\w+)", sources("opskit"))
    ours = {(section, key) for section, key in named if section in model()}

    assert ours
    assert [each for each in ours if not is_key(*each)] == []
