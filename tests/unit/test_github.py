"""What the workflows need of GitHub, against a server that answers as it documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opskit.errors import ConfigurationError, GitHubError, UsageError
from opskit.github.rest import GitHub
from opskit.github.workflow import Result, propose, put_into_files, report_issue
from tests import processes
from tests.github_server import REPOSITORY, TOKEN, Fault, Platform, platform

TITLE = "Restore drill failed"
FAILED = Result(passed=False, lines=("shop-1: rows of orders: expected 3, observed 2",))
PASSED = Result(passed=True)
NOW = 1_800_000_000.0


@pytest.fixture
def there() -> Iterator[Platform]:
    with platform() as served:
        yield served


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = NOW
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def client(there: Platform, clock: Clock | None = None, *, run: str = "1") -> GitHub:
    clock = clock or Clock()
    return GitHub(
        api=there.address, repository=REPOSITORY, token=TOKEN,
        run_url=f"https://github.example/runs/{run}", run_name=f"{run}/1",
        clock=lambda: clock.now, sleep=clock.sleep,
    )  # fmt: skip


def test_one_issue_is_open_exactly_while_a_drill_does_not_pass(there: Platform) -> None:
    """The first failure opens it, the next comments, the next success closes it."""
    opened = report_issue(client(there, run="1"), TITLE, FAILED)
    again = report_issue(client(there, run="2"), TITLE, FAILED)
    closed = report_issue(client(there, run="3"), TITLE, PASSED)
    nothing = report_issue(client(there, run="4"), TITLE, PASSED)

    actions = [e.action for e in (opened, again, closed, nothing)]
    assert actions == ["opened", "commented", "closed", "none"]
    (issue,) = there.issues
    assert (issue["title"], issue["state"]) == (TITLE, "closed")
    assert issue["state_reason"] == "completed"
    assert (
        "```text\nshop-1: rows of orders: expected 3, observed 2\n```" in issue["body"]
    )
    assert "https://github.example/runs/1" in issue["body"]
    assert [e["body"].splitlines()[0] for e in there.comments[1]] == [
        "[This run](https://github.example/runs/2) did not pass.",
        "[This run](https://github.example/runs/3) passed.",
    ]
    assert report_issue(client(there, run="5"), TITLE, FAILED).action == "opened"


def test_the_issue_is_found_behind_many_others(there: Platform) -> None:
    """Lists are read page by page; pull requests and other titles are not meant."""
    report_issue(client(there, run="1"), TITLE, FAILED)
    marker = there.issues[0]["body"].splitlines()[-1]
    for number in range(230):
        if number % 9:
            there.issue(marker, pull_request={})
        else:
            there.issue("another")
    report_issue(client(there, run="1"), "Smoke failed", FAILED)

    assert report_issue(client(there, run="2"), TITLE, PASSED).action == "closed"

    assert [e["number"] for e in there.issues if e["state"] == "closed"] == [1]


def test_an_issue_of_a_stranger_is_not_taken_for_ours(there: Platform) -> None:
    """Anybody can write our mark; only what a bot or a member wrote counts."""
    report_issue(client(there, run="1"), TITLE, FAILED)
    body, stranger = there.issues[0]["body"], {"login": "x", "type": "User"}
    there.issues.clear()
    there.issue(body, user=stranger)
    there.issue(body, user=None)

    assert report_issue(client(there, run="2"), TITLE, PASSED).action == "none"
    there.issue(body, user=stranger, author_association="MEMBER")
    assert report_issue(client(there, run="2"), TITLE, PASSED).action == "closed"


def test_what_was_read_is_no_markup_and_holds_no_secret(there: Platform) -> None:
    """A name with backquotes does not end the block; a password in it is masked."""
    line = "rows of `a`````: @everyone, postgresql://ops:hunter22@db/shop"
    report_issue(client(there), TITLE, Result(passed=False, lines=(line, "x" * 70_000)))

    body = there.issues[0]["body"]
    assert "\n``````text\n" in body
    assert "hunter22" not in body
    assert len(body) < 65_536


@pytest.mark.parametrize(
    "fault",
    [
        Fault(),
        Fault(status=502),
        Fault(status=200, body=b"{}", headers={"Content-Length": "9"}),
    ],
)
def test_nothing_is_done_twice_when_an_answer_is_lost(
    there: Platform, fault: Fault
) -> None:
    """What was done before the connection broke is found when it is tried again."""
    fault.after = True
    for asked in (r"POST /issues", r"POST /issues/1/comments", r"PATCH /issues/1"):
        there.faults.append((asked, fault))
    clock = Clock()

    assert (
        report_issue(client(there, clock, run="1"), TITLE, FAILED).action == "commented"
    )
    assert (
        report_issue(client(there, clock, run="2"), TITLE, FAILED).action == "commented"
    )
    assert report_issue(client(there, clock, run="3"), TITLE, PASSED).action == "none"

    assert len(there.issues) == 1
    assert [e["body"].splitlines()[-1] for e in there.comments[1]] == [
        "<!-- run 2/1 -->", "<!-- run 3/1 -->",
    ]  # fmt: skip
    assert clock.waits == [1.0] * 3


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        (Fault(status=503), [1.0, 3.0]),
        (Fault(status=429, headers={"Retry-After": "20"}), [20.0, 20.0]),
        (Fault(status=403, message="You have exceeded a secondary rate limit."), [60.0, 60.0]),
        (
            Fault(status=403, message="API rate limit exceeded", headers={
                "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 40:.0f}"}),
            [40.0, 3.0],
        ),
    ],
)  # fmt: skip
def test_github_is_waited_for(
    there: Platform, fault: Fault, waits: list[float]
) -> None:
    """Faults that pass are waited for, as long as GitHub asks for."""
    there.faults += [("GET /issues", fault)] * 2
    clock = Clock()

    assert report_issue(client(there, clock), TITLE, FAILED).action == "opened"

    assert clock.waits == waits


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=500), "answered 500"),
        (Fault(), "cannot be reached"),
        (Fault(status=429, headers={"Retry-After": "3600"}), "until 09:00:00 UTC"),
    ],
)
def test_waiting_has_an_end(there: Platform, fault: Fault, says: str) -> None:
    """An outage ends the step with what is wrong, not with the job's time limit."""
    there.faults += [("GET /issues", fault)] * 20
    clock = Clock()

    with pytest.raises(GitHubError, match=says) as caught:
        report_issue(client(there, clock), TITLE, FAILED)

    assert caught.value.exit_code == 10
    assert sum(clock.waits) <= 180
    assert not there.issues


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (Fault(status=401, message="Bad credentials"), "GITHUB_TOKEN has expired"),
        (Fault(status=403, message="Resource not accessible by integration"), "`issues: write`"),
        (Fault(status=404, message="Not Found"), "`issues: write`"),
        (Fault(status=410, message="Issues has been disabled in this repository."), "Switch on issues"),
        (Fault(status=200, body=b"<html>sign in</html>"), "Correct GITHUB_API_URL"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_missing(
    there: Platform, fault: Fault, hint: str
) -> None:
    """It is not tried again; the message has GitHub's words, never the token."""
    fault.message += f" {TOKEN}"
    there.faults.append(("GET /issues", fault))
    clock = Clock()

    with pytest.raises(GitHubError) as caught:
        report_issue(client(there, clock), TITLE, FAILED)

    assert hint in caught.value.hint
    assert fault.message.split(" ghs_")[0] in caught.value.message
    assert TOKEN not in caught.value.message
    assert not clock.waits


def test_what_github_does_not_accept_is_named(there: Platform) -> None:
    """Of a 422 the list of what is wrong is shown."""
    document = {"message": "Validation Failed", "errors": [
        {"resource": "Issue", "field": "title", "code": "missing_field"}, {"message": "too long"}, "odd",
    ]}  # fmt: skip
    there.faults.append(
        ("POST /issues", Fault(status=422, body=json.dumps(document).encode()))
    )

    with pytest.raises(
        GitHubError, match="Validation Failed; title missing_field; too long; odd"
    ):
        report_issue(client(there), TITLE, FAILED)


@pytest.mark.parametrize("document", [{"message": "x"}, [{"number": 1}, 7], {}, None])
def test_an_answer_of_another_form_is_no_fault_of_opskit(
    there: Platform, document: Any
) -> None:
    """What lacks a field is an error with a hint."""
    there.faults.append(
        ("POST /issues", Fault(status=201, body=json.dumps(document).encode()))
    )

    with pytest.raises(GitHubError, match="not understood") as caught:
        report_issue(client(there), TITLE, FAILED)
    assert caught.value.hint


def test_a_renamed_repository_is_followed_on_the_same_server_only(
    there: Platform,
) -> None:
    """The same request is sent there, with its body; another server gets no token."""
    moved = {"Location": f"{there.address}/repositories/7/issues"}
    there.faults.append(("POST /issues", Fault(status=307, headers=moved)))
    assert report_issue(client(there), TITLE, FAILED).action == "opened"
    assert there.issues[0]["title"] == TITLE

    with platform() as other:
        for headers in (
            {"Location": f"{other.address}/repos/acme/shop/issues"},
            {"Link": f'<{other.address}/repos/acme/shop/issues>; rel="next"'},
        ):
            status = 302 if "Location" in headers else 200
            there.faults.append(
                ("GET /issues", Fault(status=status, headers=headers, body=b"[]"))
            )
            with pytest.raises(GitHubError, match="refers to another server"):
                report_issue(client(there), TITLE, FAILED)
        assert other.asked == []


def test_endless_redirects_end(there: Platform) -> None:
    """A few are followed."""
    moved = {"Location": f"{there.address}/repos/acme/shop/issues"}
    there.faults += [("GET /issues", Fault(status=301, headers=moved))] * 9

    with pytest.raises(GitHubError, match="answered 301"):
        report_issue(client(there), TITLE, FAILED)


def evidence(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / "reports").mkdir(exist_ok=True)
        (folder / "reports" / f"{name}.md").write_text(text)
    return folder / "reports"


BRANCH = "refs/heads/opskit/docs-evidence"


def test_evidence_becomes_one_pull_request(there: Platform, tmp_path: Path) -> None:
    """Files are added on a branch; while it is open, it is the same pull request."""
    source = evidence(tmp_path, first="1")
    opened = propose(client(there), "docs/evidence", source)
    same = propose(client(there), "docs/evidence", source)
    updated = propose(client(there), "docs/evidence", evidence(tmp_path, second="2"))

    assert [e.action for e in (opened, same, updated)] == ["opened", "none", "updated"]
    assert opened.url == updated.url
    assert there.files(BRANCH) == {
        "README.md": "# Shop", "docs/evidence/first.md": "1", "docs/evidence/second.md": "2",
    }  # fmt: skip
    (pull,) = there.pulls
    assert (pull["base"], pull["title"]) == ("main", "Add evidence to docs/evidence")


def test_after_a_merge_the_branch_begins_anew(there: Platform, tmp_path: Path) -> None:
    """What is in the repository already is not proposed; what is new is, from its newest."""
    source = evidence(tmp_path, first="1")
    propose(client(there), "docs/evidence", source)
    there.pulls[0]["state"] = "closed"
    squashed = there.tree(there.files(BRANCH) | {"news.md": "!"})
    there.refs["refs/heads/main"] = there.commit(
        squashed, [there.refs["refs/heads/main"]], "Merge"
    )

    assert propose(client(there), "docs/evidence", source).action == "none"
    assert (
        propose(client(there), "docs/evidence", evidence(tmp_path, second="2")).action
        == "opened"
    )

    assert there.files(BRANCH) == {
        "README.md": "# Shop", "news.md": "!",
        "docs/evidence/first.md": "1", "docs/evidence/second.md": "2",
    }  # fmt: skip
    assert there.commits[there.refs[BRANCH]]["parents"] == [
        there.refs["refs/heads/main"]
    ]


@pytest.mark.parametrize(
    "asked", ["POST /git/trees", "POST /git/commits", "POST /git/refs", "POST /pulls"]
)
def test_a_pull_request_survives_lost_answers(
    there: Platform, tmp_path: Path, asked: str
) -> None:
    """Wherever the connection breaks, there is one branch and one pull request."""
    there.faults.append((asked, Fault(after=True)))

    propose(client(there), "docs/evidence", evidence(tmp_path, first="1"))

    assert len(there.pulls) == 1
    assert there.files(BRANCH)["docs/evidence/first.md"] == "1"


def test_pull_requests_of_workflows_may_be_forbidden(
    there: Platform, tmp_path: Path
) -> None:
    """The hint names the switch, which no permission of the job replaces."""
    message = "GitHub Actions is not permitted to create or approve pull requests."
    there.faults.append(("POST /pulls", Fault(status=403, message=message)))

    with pytest.raises(GitHubError, match=message) as caught:
        propose(client(there), "docs/evidence", evidence(tmp_path, first="1"))
    assert "Settings, Actions, General" in caught.value.hint


def test_only_evidence_is_proposed(there: Platform, tmp_path: Path) -> None:
    """Nothing outside the folder, no links, no other files, not too many or too large."""
    source = evidence(tmp_path, first="1")
    for folder in ("/docs", "../docs", "."):
        with pytest.raises(UsageError, match="not a folder inside the repository"):
            propose(client(there), folder, source)
    with pytest.raises(UsageError, match="no files"):
        propose(client(there), "docs", tmp_path / "missing")
    (source / "link.md").symlink_to("/etc/hostname")
    propose(client(there), "docs/evidence", source)
    assert "docs/evidence/link.md" not in there.files(BRANCH)
    (source / "large.md").write_text("x" * 4_194_305)
    with pytest.raises(UsageError, match="larger than"):
        propose(client(there), "docs/evidence", source)
    (source / "large.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text"):
        propose(client(there), "docs/evidence", source)


@pytest.mark.parametrize("outcome", ["failure", "cancelled", "skipped", "lost"])
def test_only_success_has_passed(tmp_path: Path, outcome: str) -> None:
    """Evidence that passed proves nothing about a job that did not end."""
    evidence(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"backup_id": "shop-1", "checks": []}))

    result = Result.of(outcome, tmp_path)

    assert result == Result(passed=False, lines=(f"it ended: {outcome}",))
    assert Result.of("success", tmp_path).passed
    assert not Result.of(outcome, None).passed


def test_what_did_not_pass_is_named_without_values(tmp_path: Path) -> None:
    """Digests and the words of a server may be of rows, and issues are read by many."""
    checks = [
        {
            "name": "rows of orders",
            "passed": False,
            "expected": "3",
            "observed": "x@example.com",
        },
        {"name": "grants", "passed": True, "expected": "", "observed": ""},
    ]
    (tmp_path / "shop-1").mkdir()
    (tmp_path / "shop-1" / "drill.json").write_text(
        json.dumps({"backup_id": "shop-1", "checks": checks})
    )
    (tmp_path / "shop-1" / "torn.json").write_text('{"checks": [')
    (tmp_path / "shop-1" / "odd.json").write_text("[]")
    (tmp_path / "shop-1" / "deep.json").write_text("[" * 100_000)
    (tmp_path / "shop-1" / "a.json").mkdir()

    assert Result.of("failure", tmp_path).lines == (
        "it ended: failure", "a.json cannot be read", "deep.json cannot be read",
        "shop-1: rows of orders", "odd.json cannot be read", "torn.json cannot be read",
    )  # fmt: skip


def test_secrets_become_files(tmp_path: Path) -> None:
    """Each in a file for its owner only; what is none or is a file already is left."""
    existing = tmp_path / "known"
    existing.touch()
    environment = {
        "RUNNER_TEMP": str(tmp_path), "GITHUB_ENV": str(tmp_path / "env"),
        "PGPASSFILE": "db:5432:shop:ops:hunter2", "PGSERVICEFILE": str(existing),
        "AWS_SHARED_CREDENTIALS_FILE": "", "OPSKIT_SIGNING__KEY_FILE": "-----BEGIN\r\nabc\r\n\r\n",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "e" * 300,  # longer than the name of a file may be
        "OTHER_FILE": "x", "OPSKIT_CONFIG": "y", "OPSKIT_SMOKE__PROFILE": "strict",
    }  # fmt: skip

    assert put_into_files(environment) == (
        "PGPASSFILE", "OPSKIT_SIGNING__KEY_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    )  # fmt: skip

    later = dict(e.split("=", 1) for e in (tmp_path / "env").read_text().splitlines())
    assert Path(later["PGPASSFILE"]).read_text() == "db:5432:shop:ops:hunter2\n"
    assert Path(later["OPSKIT_SIGNING__KEY_FILE"]).read_text() == "-----BEGIN\nabc\n"
    assert {Path(e).stat().st_mode & 0o777 for e in later.values()} == {0o600}
    with pytest.raises(ConfigurationError, match="RUNNER_TEMP is not set"):
        put_into_files({})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"GITHUB_TOKEN": ""}, "GITHUB_TOKEN is not set"),
        ({"GITHUB_TOKEN": f"{TOKEN}\n"}, "GITHUB_TOKEN has characters"),
        ({"GITHUB_REPOSITORY": "../x"}, "not OWNER/NAME"),
        ({"GITHUB_REPOSITORY": "a/b?c"}, "not OWNER/NAME"),
        ({"GITHUB_API_URL": "http://api.github.example"}, "not encrypted"),
    ],
)
def test_a_token_goes_only_where_it_belongs(changed: dict[str, str], says: str) -> None:
    """A wrong environment is refused before anything is sent."""
    environment = {"GITHUB_TOKEN": TOKEN, "GITHUB_REPOSITORY": REPOSITORY} | changed
    with pytest.raises(ConfigurationError, match=says):
        GitHub.of(environment)


def test_the_command_in_a_step(there: Platform, tmp_path: Path) -> None:
    """It needs no configuration, prints one document, and never the token."""
    environment = {
        "PATH": "/usr/bin:/bin", "GITHUB_TOKEN": TOKEN, "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_API_URL": there.address, "GITHUB_RUN_ID": "7",
    }  # fmt: skip
    call = ["github", "--issue", TITLE, "--outcome", "lost", "--json"]
    code, output, errors = processes.run_inv(tmp_path, call, environment)
    assert (code, json.loads(output)["action"]) == (0, "opened"), errors

    environment["GITHUB_TOKEN"] = "ghs_wrong" * 4
    code, output, errors = processes.run_inv(tmp_path, call, environment)
    assert (code, json.loads(output)["code"]) == (10, 10)
    assert "Bad credentials" in output
    assert "ghs_wrong" not in output + errors
    code, output, errors = processes.run_inv(
        tmp_path, ["github", "--issue", TITLE, "--json"], environment
    )
    assert (code, "one thing has to be named" in output) == (2, True)
