"""What a step of a workflow does: an issue, a pull request, secrets put into files.

Each looks first at what is there, so that it can be done again after a connection was
lost in the middle.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from opskit import files
from opskit.errors import ConfigurationError, UsageError
from opskit.github.rest import GitHub
from opskit.log import mask

_FILES_MAX, _FILE_BYTES_MAX = 500, 4 * 1024 * 1024
_TEXT_MAX = 60_000  # GitHub takes 65,536 characters
_SECRET_FILE = re.compile(r"PG(PASS|SERVICE)FILE|(AWS|OPSKIT)_\w+_FILE")
_OF_THE_REPOSITORY = frozenset({"OWNER", "MEMBER", "COLLABORATOR"})


@dataclass(frozen=True, kw_only=True)
class Done:
    """What was done on GitHub, and where it can be seen."""

    action: str
    url: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {"action": self.action, "url": self.url}


_NOTHING = Done(action="none")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Whether what a workflow did has passed, and what it says of what did not."""

    passed: bool
    lines: tuple[str, ...] = ()

    @classmethod
    def of(cls, outcome: str, evidence: Path | None) -> Result:
        """Return what GitHub says became of a step, and what evidence did not pass."""
        lines = [f"it ended: {outcome}"]
        for path in sorted(evidence.rglob("*.json")) if evidence else ():
            try:
                lines += _lines(json.loads(path.read_bytes()))
            except (OSError, ValueError, LookupError, TypeError, RecursionError):
                lines.append(f"{path.name} cannot be read")
        return cls(passed=outcome == "success", lines=tuple(lines))


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the checks that did not pass, by their names: values may be of rows."""
    for check in document["checks"]:
        if check["passed"] is False:
            yield f"{document['backup_id']}: {check['name']}"


def report_issue(github: GitHub, title: str, result: Result) -> Done:
    """Have one issue open exactly while a result is not passed.

    It is opened or commented on by a failure, and closed by a result that passed.
    """
    marker = f"<!-- opskit: {re.sub(r'[^a-z0-9]+', '-', title.lower())} -->"
    return github.patiently(lambda: _report(github, title, result, marker))


def _report(github: GitHub, title: str, result: Result, marker: str) -> Done:
    needs = "issues: write"
    ours = [
        each
        for each in github.pages("/issues", needs=needs, state="open")
        if "pull_request" not in each
        and marker in (each.get("body") or "")
        and _is_trusted(each)
    ]
    own_mark = f"<!-- run {github.run_name} -->"
    text = _text(github, result, own_mark)
    if result.passed:
        for each in ours:
            _comment(github, each, text, own_mark)
            document = {"state": "closed", "state_reason": "completed"}
            github.ask("PATCH", f"/issues/{each['number']}", document, needs=needs)
        return Done(action="closed", url=ours[0]["html_url"]) if ours else _NOTHING
    if ours:
        _comment(github, ours[0], text, own_mark)
        return Done(action="commented", url=ours[0]["html_url"])
    document = {"title": title, "body": f"{text}\n{marker}"}
    made = github.ask("POST", "/issues", document, needs=needs)
    return Done(action="opened", url=made["html_url"])


def _is_trusted(entry: Mapping[str, Any]) -> bool:
    """Whether a bot or a member wrote it: anybody can open an issue."""
    is_bot = (entry.get("user") or {}).get("type") == "Bot"
    return is_bot or entry.get("author_association") in _OF_THE_REPOSITORY


def _comment(
    github: GitHub, issue: Mapping[str, Any], text: str, own_mark: str
) -> None:
    """Comment on an issue, unless this run has done so already."""
    needs, path = "issues: write", f"/issues/{issue['number']}/comments"
    known = [issue, *github.pages(path, needs=needs)]
    if not any(own_mark in (each.get("body") or "") for each in known):
        github.ask("POST", path, {"body": text}, needs=needs)


def _text(github: GitHub, result: Result, own_mark: str) -> str:
    """Return a comment; what was read stands in a block, where nothing is markup."""
    run = f"[This run]({github.run_url})" if github.run_url else "This run"
    if result.passed:
        return f"{run} passed.\n{own_mark}"
    said = mask("\n".join(result.lines))[:_TEXT_MAX]
    fence = "`" * (1 + max(2, *map(len, re.findall("`*", said))))
    return f"{run} did not pass.\n\n{fence}text\n{said}\n{fence}\n{own_mark}"


def propose(github: GitHub, folder: str, source: Path) -> Done:
    """Have a pull request open that puts the files of a folder into the repository."""
    target = PurePosixPath(folder)
    if target.is_absolute() or ".." in target.parts or not target.parts:
        raise UsageError(
            f"{folder} is not a folder inside the repository",
            hint="Name it from the top of the repository: docs/evidence.",
        )
    entries = [
        {"path": str(target / name), "mode": "100644", "type": "blob", "content": text}
        for name, text in _texts(source)
    ]
    return github.patiently(lambda: _propose(github, str(target), entries))


def _texts(source: Path) -> Iterator[tuple[str, str]]:
    """Yield the files of a folder, and what is in them; links are not followed."""
    found = [e for e in sorted(source.rglob("*")) if e.is_file() and not e.is_symlink()]
    if not found or len(found) > _FILES_MAX:
        raise UsageError(
            f"there are {len(found) or 'no'} files in {source}",
            hint=f"Name a folder with 1 to {_FILES_MAX} files.",
        )
    for each in found:
        content = each.read_bytes()
        try:
            if len(content) > _FILE_BYTES_MAX:
                raise UsageError(
                    f"{each} is larger than {_FILE_BYTES_MAX:,} bytes",
                    hint="Only evidence belongs there.",
                )
            yield each.relative_to(source).as_posix(), content.decode()
        except ValueError:
            raise UsageError(
                f"{each} is not text", hint="Only evidence belongs there."
            ) from None


def _propose(github: GitHub, folder: str, entries: Iterable[object]) -> Done:
    contents, pulls = "contents: write", "pull-requests: write"
    owner = github.repository.partition("/")[0]
    branch = "opskit/" + folder.replace("/", "-")
    base = github.ask("GET", "", needs="contents: read")["default_branch"]
    query = {"state": "open", "head": f"{owner}:{branch}", "base": base}
    opened = list(github.pages("/pulls", needs=pulls, **query))
    heads = {
        each["ref"]: each["object"]["sha"]
        for name in (base, branch)
        for each in github.pages(
            f"/git/matching-refs/heads/{quote(name)}", needs=contents
        )
    }
    # What stands on a branch whose pull request was merged or closed is begun anew.
    ref = f"refs/heads/{branch}"
    parent = heads[ref] if opened and ref in heads else heads[f"refs/heads/{base}"]
    before = github.ask("GET", f"/git/commits/{parent}", needs=contents)["tree"]["sha"]
    document: dict[str, object] = {"base_tree": before, "tree": entries}
    tree = github.ask("POST", "/git/trees", document, needs=contents)["sha"]
    title = f"Add evidence to {folder}"
    if tree != before:
        document = {"message": title, "tree": tree, "parents": [parent]}
        made = github.ask("POST", "/git/commits", document, needs=contents)["sha"]
        if ref in heads:
            document = {"sha": made, "force": not opened}
            github.ask("PATCH", f"/git/{ref}", document, needs=contents)
        else:
            document = {"ref": ref, "sha": made}
            github.ask("POST", "/git/refs", document, needs=contents)
    if opened:
        action = "updated" if tree != before else "none"
        return Done(action=action, url=opened[0]["html_url"])
    if tree == before:
        return _NOTHING
    body = f"Made by [this run]({github.run_url})."
    document = {"title": title, "head": branch, "base": base, "body": body}
    made = github.ask("POST", "/pulls", document, needs=pulls)
    return Done(action="opened", url=made["html_url"])


def put_into_files(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Write secrets into files, and have the later steps of the job know these files.

    They are the variables `PG…FILE`, `AWS_…_FILE` and `OPSKIT_…_FILE` that hold the
    content of a file. Return their names.
    """
    try:
        folder = Path(environment["RUNNER_TEMP"]) / "opskit-secrets"
        for_later = Path(environment["GITHUB_ENV"])
    except KeyError as error:
        raise ConfigurationError(
            f"{error.args[0]} is not set", hint="Run this in a workflow of GitHub."
        ) from None
    found = {
        name: value
        for name, value in environment.items()
        if _SECRET_FILE.fullmatch(name)
        and value.strip()
        and not os.path.isfile(value.partition("\n")[0])
    }
    files.make_directories(folder)
    for name, value in found.items():
        # A form in a browser sends other ends of lines, and drops the last one.
        text = value.replace("\r\n", "\n").rstrip("\n") + "\n"
        files.write_atomically(folder / name, [text.encode()])
    with for_later.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={folder / name}\n" for name in found)
    return tuple(found)
