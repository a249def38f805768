"""Railway over real HTTP: what is a success, what is not, and what is left behind."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from opskit.config import Settings
from opskit.config.release import RailwaySettings, ReleaseSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import ConfigurationError, DeployFailed, OpskitError, ReleaseRefused
from opskit.log import mask
from opskit.operations.release import ReleaseRequest, release, rollback
from opskit.operations.run import Run
from opskit.probes.runner import Clock
from opskit.release.configuration import configuration, differing, hashes
from opskit.release.deployers import deployer_of
from opskit.release.railway import Railway
from tests.listening import answer, listening
from tests.railway import SERVICE, TOKEN, Fault, Platform, serving

ONE, TWO, THREE, FOUR = ("1" * 40, "2" * 40, "3" * 40, "4" * 40)
BUSY = Fault(status=429, headers={"Retry-After": "7"}, body=b"too many")
DEADLINE_SECONDS = 20 * 60


@dataclass
class Time:
    """A clock that waiting turns on at once."""

    seconds: float = 0.0

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture(scope="module")
def platforms() -> Iterator[Callable[[], Platform]]:
    with serving() as made:
        yield made


@pytest.fixture
def platform(platforms: Callable[[], Platform]) -> Platform:
    """A platform where the first commit is deployed."""
    made = platforms()
    made.begin(ONE, ["SUCCESS"])
    return made


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def railway(platform: Platform, time: Time) -> Railway:
    settings = RailwaySettings.model_validate(
        {"service": SERVICE, "token": TOKEN, "url": platform.url}
    )
    return Railway(settings, Clock(now=time.now, wait=time.wait))


def failure(call: Callable[[], object], *words: str) -> OpskitError:
    """Return how a call fails."""
    with pytest.raises(DeployFailed) as caught:
        call()
    for each in words:
        assert each in caught.value.message
    assert TOKEN not in caught.value.message
    return caught.value


def test_a_commit_is_deployed_and_the_one_before_comes_back(
    platform: Platform, railway: Railway
) -> None:
    """The way back takes the image that is kept, and knows its new deployment."""
    assert railway.current() == ONE

    assert railway.deploy(TWO) == "deployment-2"
    assert railway.current() == TWO
    assert platform.status(1) == "REMOVED"

    assert railway.return_to(ONE) == "deployment-3"
    assert railway.current() == ONE
    assert platform.asked.count("deploymentRollback") == 1


@pytest.mark.parametrize("status", ["FAILED", "CRASHED", "REMOVED", "SKIPPED", "CANCELLED"])  # fmt: skip
def test_a_bad_status_ends_the_wait(
    platform: Platform, railway: Railway, time: Time, status: str
) -> None:
    """At once, and the version before is still the current one."""
    platform.next_statuses = [["BUILDING", status]]

    failure(lambda: railway.deploy(TWO), "deployment-2", f"status {status}")

    assert time.seconds < DEADLINE_SECONDS / 2
    assert platform.asked.count("deploymentCancel") == 0
    assert railway.current() == (TWO if status == "CRASHED" else ONE)


@pytest.mark.parametrize("status", ["BUILDING", "NEEDS_APPROVAL", "FROZEN"])
def test_what_does_not_end_is_cancelled(
    platform: Platform, railway: Railway, time: Time, status: str
) -> None:
    """Or it would replace the version before after the rollback."""
    platform.next_statuses = [[status]]

    error = failure(lambda: railway.deploy(TWO), f"status {status}")

    assert "may still replace" not in error.message
    assert 0.9 * DEADLINE_SECONDS < time.seconds < 1.2 * DEADLINE_SECONDS
    assert platform.status(2) == "CANCELLED"


def test_what_cannot_be_cancelled_is_said(platform: Platform, railway: Railway) -> None:
    """Somebody has to look after it."""
    platform.next_statuses = [["DEPLOYING"]]

    failure(lambda: railway.deploy(TWO), "status DEPLOYING", "may still replace")


@pytest.mark.parametrize(
    "fault",
    [BUSY, Fault(status=503), Fault(status=500), Fault(is_reset=True), Fault(status=200),
     Fault(error="Problem processing request")],
    ids=["429", "503", "500", "reset", "html", "errors"],
)  # fmt: skip
@pytest.mark.parametrize("asked", ["projectToken", "deployments", "deployment"])
def test_a_question_is_asked_again(
    platform: Platform, railway: Railway, asked: str, fault: Fault
) -> None:
    """A question changes nothing."""
    platform.faults = {asked: [fault, fault]}

    assert railway.deploy(TWO) == "deployment-2"
    assert platform.asked.count("serviceInstanceDeployV2") == 1
    assert not platform.faults[asked]


def test_a_rate_limit_is_waited_for(
    platform: Platform, railway: Railway, time: Time
) -> None:
    """For as long as it says; a change that it refused is asked for again."""
    platform.faults = {"serviceInstanceDeployV2": [BUSY]}

    railway.deploy(TWO)

    assert time.seconds >= 7
    assert platform.asked.count("serviceInstanceDeployV2") == 2


def test_a_rate_limit_beyond_the_deadline_is_not_waited_for(
    platform: Platform, railway: Railway, time: Time
) -> None:
    """Nor is anything deployed meanwhile."""
    long = Fault(status=429, headers={"Retry-After": "3600"})
    platform.faults = {"serviceInstanceDeployV2": [long]}

    failure(lambda: railway.deploy(TWO), "rate limit is used up for 3600 s")

    assert time.seconds < 60
    assert len(platform.deployments) == 1


@pytest.mark.parametrize("change", ["deploy", "return_to"])
def test_a_lost_answer_does_not_deploy_twice(
    platform: Platform, railway: Railway, change: str
) -> None:
    """The deployment that it began is found in the list."""
    platform.begin(TWO, ["SUCCESS"])
    platform.deployments[0].statuses = ["REMOVED"]
    platform.faults = {
        "serviceInstanceDeployV2": [Fault(is_lost=True)],
        "deploymentRollback": [Fault(is_lost=True)],
    }
    version = THREE if change == "deploy" else ONE

    assert getattr(railway, change)(version) == "deployment-3"

    assert len(platform.deployments) == 3
    assert railway.current() == version


@pytest.mark.parametrize("fault", [Fault(is_reset=True), Fault(status=502)])
def test_a_change_that_was_not_done_is_no_success(
    platform: Platform, railway: Railway, time: Time, fault: Fault
) -> None:
    """No deployment appears, and that is not waited for until the deadline."""
    platform.faults = {"serviceInstanceDeployV2": [fault]}

    failure(lambda: railway.deploy(TWO), f"began no deployment of {TWO}")

    assert time.seconds < DEADLINE_SECONDS / 2


def test_an_error_with_status_200_is_no_success(
    platform: Platform, railway: Railway
) -> None:
    """It is how Railway refuses a change; what it says is shown."""
    refusal = Fault(error="Commit not found")
    platform.faults = {"serviceInstanceDeployV2": [refusal]}

    failure(lambda: railway.deploy(TWO), "Commit not found")
    platform.faults = {"deploymentRollback": [Fault(error="No image")]}
    platform.begin(TWO, ["SUCCESS"])
    platform.deployments[0].statuses = ["REMOVED"]
    failure(lambda: railway.return_to(ONE), "No image")


@pytest.mark.parametrize("deadline", ["20m", "3s"])
def test_the_words_of_the_platform_are_not_in_a_summary(
    platform: Platform, deadline: str
) -> None:
    """The ledger keeps summaries, and the words may hold what nobody else may read."""
    settings = RailwaySettings.model_validate(
        {"service": SERVICE, "token": TOKEN, "url": platform.url, "deadline": deadline}
    )
    time = Time()
    platform.faults = {"deployment": [Fault(error="row (7, Ada)")] * 9}

    error = failure(
        lambda: Railway(settings, Clock(now=time.now, wait=time.wait)).deploy(TWO),
        "status unknown",
        "Railway answers with an error",
        "row (7, Ada)",
    )

    assert "row (7, Ada)" not in error.summary


def test_no_half_of_a_token_is_shown(platform: Platform, railway: Railway) -> None:
    """Long words are cut, after what is secret in them was masked."""
    words = "x" * 590 + TOKEN
    platform.faults = {"serviceInstanceDeployV2": [Fault(error=words)]}

    error = failure(lambda: railway.deploy(TWO), "xxx***")

    assert TOKEN[:6] not in error.message


@pytest.mark.parametrize("status", [302, 400, 404])
def test_what_is_no_api_is_not_asked_for_long(
    platform: Platform, railway: Railway, time: Time, status: int
) -> None:
    """The address may be wrong; a redirect would take the token elsewhere."""
    elsewhere = Fault(status=status, headers={"Location": f"{platform.url}/elsewhere"})
    platform.faults = {"projectToken": [elsewhere] * 9}

    failure(railway.current, f"Railway answers {status}")

    assert len(platform.asked) == 5
    assert time.seconds < 60


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_ends_it(
    platform: Platform, railway: Railway, status: int
) -> None:
    """Without asking again, and with the kind of token that is needed."""
    platform.faults = {"projectToken": [Fault(status=status)]}

    error = failure(railway.current, "refuses the token")

    assert "project token" in error.hint
    assert platform.asked == ["projectToken"]


def test_a_wrong_token_is_not_shown(platform: Platform) -> None:
    """Errors with status 200 are tried a few times, as they may pass."""
    settings = RailwaySettings.model_validate(
        {"service": SERVICE, "token": "wrong-" + TOKEN, "url": platform.url}
    )
    time = Time()

    failure(
        Railway(settings, Clock(now=time.now, wait=time.wait)).current, "Not Authorized"
    )

    assert time.seconds < 60
    assert mask(f"x wrong-{TOKEN} y") == "x *** y"


def test_a_rollback_that_never_appears_is_no_success(
    platform: Platform, railway: Railway, time: Time
) -> None:
    """The answer to it has no id."""
    railway.deploy(TWO)
    platform.rolls_back = False
    began = time.seconds

    failure(lambda: railway.return_to(ONE), f"began no deployment of {ONE}")

    assert time.seconds - began < DEADLINE_SECONDS / 2


def test_what_is_no_longer_kept_is_built_again(
    platform: Platform, railway: Railway
) -> None:
    """The image may be gone: the commit is not."""
    railway.deploy(TWO)
    platform.deployments[0].can_roll_back = False

    assert railway.return_to(ONE) == "deployment-3"
    assert platform.asked.count("deploymentRollback") == 0
    assert railway.current() == ONE


@pytest.mark.parametrize("change", ["deploy", "return_to"])
def test_of_two_new_deployments_the_right_one_is_followed(
    platform: Platform, railway: Railway, change: str
) -> None:
    """Somebody pushes at the same moment; who wins is what `current` says."""
    railway.deploy(TWO)
    platform.also_begins = THREE
    platform.next_statuses = [["BUILDING", "SUCCESS"], ["BUILDING", "SUCCESS"]]
    version = FOUR if change == "deploy" else ONE

    assert getattr(railway, change)(version) == "deployment-3"
    assert railway.current() == version

    platform.deployment(None, "deployment-4")
    assert railway.current() == THREE


def test_a_way_back_cancels_what_is_still_being_built(
    platform: Platform, railway: Railway
) -> None:
    """A killed release has left it; the version before has never ceased to run."""
    platform.begin(TWO, ["BUILDING"])

    assert railway.return_to(ONE) == "deployment-1"

    assert platform.status(2) == "CANCELLED"
    assert len(platform.deployments) == 2


@pytest.mark.parametrize("fault", [Fault(is_reset=True), Fault(error="Try again")])
def test_a_way_back_cancels_again_what_was_not_cancelled(
    platform: Platform, railway: Railway, fault: Fault
) -> None:
    """No answer says nothing of what was done."""
    platform.begin(TWO, ["BUILDING"])
    platform.faults = {"deploymentCancel": [fault, fault]}

    assert railway.return_to(ONE) == "deployment-1"

    assert platform.status(2) == "CANCELLED"


def test_a_way_back_is_no_success_while_another_deployment_goes_on(
    platform: Platform, railway: Railway, time: Time
) -> None:
    """It may replace the version before after the release has ended."""
    platform.begin(TWO, ["QUEUED"])
    platform.cancels = False

    failure(
        lambda: railway.return_to(ONE), f"deployment-2 of {TWO}", "may still replace"
    )

    assert 0.9 * DEADLINE_SECONDS < time.seconds <= DEADLINE_SECONDS


def test_a_way_back_sees_what_was_done_before_it_could_be_cancelled(
    platform: Platform, railway: Railway
) -> None:
    """Or the version before would be said to run on."""
    platform.begin(TWO, ["DEPLOYING", "SUCCESS"])

    assert railway.return_to(ONE) == "deployment-3"

    assert railway.current() == ONE
    assert platform.status(2) == "REMOVED"


def test_a_deployment_that_was_begun_is_followed(
    platform: Platform, railway: Railway
) -> None:
    """A release that is resumed does not begin a second one."""
    platform.begin(TWO)

    assert railway.deploy(TWO) == "deployment-2"
    assert platform.asked.count("serviceInstanceDeployV2") == 0


@pytest.mark.parametrize(
    "version", ["main", "1.4.2", "abc1234", "", "A" * 40, "1" * 41]
)
def test_only_a_whole_commit_is_a_version(railway: Railway, version: str) -> None:
    """A branch moves, and a short name may come to be ambiguous."""
    with pytest.raises(ReleaseRefused):
        railway.require(version)
    railway.require(ONE)


def test_a_token_is_read_like_other_secrets(tmp_path: Path) -> None:
    """From a file that nobody else may read, or the environment."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")

    def deployer(**section: object) -> object:
        settings = ReleaseSettings.model_validate(
            {"deployer": "railway", "railway": {"service": SERVICE, **section}}
        )
        return deployer_of(settings, SmokeSettings(), tmp_path)

    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="may be read by others"):
        deployer(token_file=file)
    file.chmod(0o600)
    assert TOKEN not in repr(deployer(token_file=file))
    with pytest.raises(ConfigurationError, match="token is not set"):
        deployer()


@pytest.mark.parametrize("url", ["http://railway.example/graphql/v2", "ftp://x/", ""])
def test_a_token_is_not_sent_in_the_open(url: str) -> None:
    """Only to this machine."""
    with pytest.raises(ValueError, match="url"):
        RailwaySettings(url=url)


def test_the_variables_are_part_of_a_release(
    platform: Platform, railway: Railway
) -> None:
    """Of them only a hash is kept; where they cannot be read, nothing fails."""
    settings = ReleaseSettings()

    def read() -> dict[str, bytes]:
        return configuration(settings, railway, Path())

    platform.variables = {"A": "1", "B": "2"}
    then = hashes(read())
    platform.variables = {"B": "2", "A": "1"}
    assert differing(then, read()) == []
    platform.variables = {"A": "1", "B": "3"}
    assert differing(then, read()) == ["variables"]
    platform.faults = {"variables": [Fault(status=401)]}
    assert differing(then, read()) == []


def test_releases_go_there_and_back(platform: Platform, tmp_path: Path) -> None:
    """A good one, one that crashes, and a rollback by hand; the token is nowhere."""

    def respond(
        connection: socket.socket, _head: bytes, _ended: threading.Event
    ) -> None:
        runs = [each for each in platform.deployments if each.status == "SUCCESS"]
        body = json.dumps({"version": runs[-1].commit}).encode()
        connection.sendall(answer(body))

    with listening(respond) as address:
        settings = Settings.model_validate(
            {
                "state_dir": tmp_path / "state",
                "smoke": {
                    "url": f"http://{address}",
                    "deadline": "1s",
                    "connections": 2,
                    "profile": "minimal",
                },
                "release": {
                    "deployer": "railway",
                    "railway": {
                        "service": SERVICE,
                        "token": TOKEN,
                        "url": platform.url,
                    },
                },
            }
        )
        platform.variables = {"PASSWORD": "xyzzy"}
        good, bad = ["BUILDING", "SUCCESS"], ["BUILDING", "CRASHED"]
        platform.next_statuses = [[*good], bad, [*good], [*good], [*good]]

        assert release(Run(settings), ReleaseRequest(version=TWO)).exit_code == 0
        crashed = release(Run(settings), ReleaseRequest(version=THREE))
        assert release(Run(settings), ReleaseRequest(version=FOUR)).exit_code == 0
        platform.variables = {"PASSWORD": "plugh"}
        back = rollback(Run(settings))

    assert crashed.exit_code == 60
    assert f"status CRASHED; {TWO} runs again" in crashed.errors[0].message
    assert back.exit_code == 0
    assert back.result is not None
    assert (back.result.version, back.result.differing) == (TWO, ["variables"])
    assert [each.commit for each in platform.deployments] == [
        *(ONE, TWO, THREE, TWO, FOUR, TWO)
    ]
    assert platform.asked.count("deploymentRollback") == 2
    kept = [each for each in (tmp_path / "state").rglob("*") if each.is_file()]
    for text in (each.read_text(errors="replace") for each in kept):
        assert TOKEN not in text
        assert "xyzzy" not in text
