"""Railway: deploys commits of a service by the GraphQL of that platform."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from opskit import __version__
from opskit.config.release import RailwaySettings
from opskit.errors import DeployFailed, ReleaseRefused
from opskit.log import WORDS_SHOWN, hide, mask
from opskit.probes.probe import Inconclusive, WrongAnswer
from opskit.probes.runner import Clock
from opskit.probes.session import BALANCERS, Answer, Session, Target

_TOKEN = "query { projectToken { projectId environmentId } }"  # noqa: S105
_LIST = """
query ($input: DeploymentListInput!, $first: Int) {
  deployments(input: $input, first: $first) {
    edges { node { id status createdAt canRollback meta } }
  }
}
"""
_VARIABLES = """
query ($projectId: String!, $environmentId: String!, $serviceId: String) {
  variables(
    projectId: $projectId, environmentId: $environmentId, serviceId: $serviceId
  )
}
"""
_STATUS = "query ($id: String!) { deployment(id: $id) { status } }"
_DEPLOY = """
mutation ($commitSha: String, $environmentId: String!, $serviceId: String!) {
  serviceInstanceDeployV2(
    commitSha: $commitSha, environmentId: $environmentId, serviceId: $serviceId
  )
}
"""
_ROLL_BACK = "mutation ($id: String!) { deploymentRollback(id: $id) }"
_CANCEL = "mutation ($id: String!) { deploymentCancel(id: $id) }"

_GOOD = frozenset({"SUCCESS", "SLEEPING"})
_BAD = frozenset({"FAILED", "CRASHED", "REMOVED", "REMOVING", "SKIPPED", "CANCELLED"})
# The newest in one of these is the one that is deployed.
_DEPLOYED = _GOOD | {"CRASHED"}
_LISTED = 50
_OK, _TOO_MANY, _SERVER_FAULT = 200, 429, 500
_SECONDS = 30.0
# How long a question may take to be answered, outside of a deployment.
_ASK_SECONDS = 60.0
_APPEAR_SECONDS = 120.0
_ERRORS_MAX = 5
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 1.0, 15.0
_HINT = "Look at the deployments of the service on Railway."
_NOT_CANCELLED = "; it cannot be cancelled, and may still replace what runs"


class _NotAnswered(Exception):
    """There is no answer; `seconds` is how long to wait, where that was said.

    What was asked `was_refused` if it was certainly not done.
    """

    def __init__(
        self, reason: str, *, seconds: float = 0.0, was_refused: bool = False
    ) -> None:
        super().__init__(reason)
        self.seconds, self.was_refused = seconds, was_refused


class _Refused(DeployFailed):
    """Railway answered that it does not do this."""


@dataclass(frozen=True, kw_only=True)
class _Deployment:
    id: str
    status: str
    version: str
    can_roll_back: bool


@dataclass(frozen=True)
class _Api:
    """Asks the API, with a project token."""

    url: str
    token: str = field(repr=False)
    clock: Clock

    @cached_property
    def _target(self) -> Target:
        parts = urlsplit(self.url)
        return Target(
            url=f"{parts.scheme}://{parts.netloc}",
            timeout_seconds=_SECONDS,
            keys={"token": {"Project-Access-Token": self.token}},
        )

    def ask(self, query: str, deadline: float, **variables: Any) -> Any:
        """Return the one field of an answer; ask again until a deadline.

        Raises:
            DeployFailed: there is none, or it is an error several times.
        """
        errors, pauses = 0, _pauses()
        while True:
            pause, said = next(pauses), ""
            try:
                return self._send(query, variables)
            except _NotAnswered as error:
                reason, pause = str(error), max(pause, error.seconds)
            except _Refused as error:
                errors += 1
                if errors >= _ERRORS_MAX:
                    raise
                reason, said = error.summary, error.said
            self._pause(pause, deadline, reason, said)

    def change(self, mutation: str, deadline: float, **variables: Any) -> Any:
        """Return the answer to a change, or nothing where it may have been done.

        Raises:
            DeployFailed: it was not done.
        """
        while True:
            try:
                return self._send(mutation, variables)
            except _NotAnswered as error:
                if not error.was_refused:
                    return None
                seconds = max(error.seconds, _PAUSE_SECONDS_MIN)
                self._pause(seconds, deadline, str(error))

    def _pause(
        self, seconds: float, deadline: float, reason: str, said: str = ""
    ) -> None:
        if self.clock.now() + seconds > deadline:
            raise DeployFailed(f"no answer of Railway: {reason}", said=said, hint=_HINT)
        self.clock.wait(seconds)

    def _send(self, query: str, variables: Mapping[str, Any]) -> Any:
        try:
            with Session(self._target) as session:
                answer = session.request(
                    "POST",
                    urlsplit(self.url).path,
                    key="token",
                    headers={"User-Agent": f"opskit/{__version__}"},
                    document={"query": query, "variables": variables},
                    own=(_TOO_MANY, *BALANCERS),
                )
        except Inconclusive as error:
            raise _NotAnswered(str(error)) from error
        if answer.status == _TOO_MANY:
            seconds = _retry_after(answer)
            reason = f"its rate limit is used up for {seconds:.0f} s"
            raise _NotAnswered(reason, seconds=seconds, was_refused=True)
        if answer.status >= _SERVER_FAULT:
            raise _NotAnswered(f"status {answer.status}", seconds=_retry_after(answer))
        if answer.status in (401, 403):
            raise DeployFailed(
                f"Railway refuses the token: status {answer.status}",
                hint="It must be a project token of the environment that is released.",
            )
        return _field(answer)


def _field(answer: Answer) -> Any:
    """Return the one field of an answer."""
    try:
        document = answer.json()
    except WrongAnswer as error:
        if answer.status != _OK:
            raise _Refused(f"Railway answers {error.observed}", hint=_HINT) from error
        raise _NotAnswered(error.observed) from error
    if not isinstance(document, dict):
        document = {}
    if errors := document.get("errors"):
        messages = [
            str(each["message"])
            for each in errors
            if isinstance(each, dict) and "message" in each
        ]
        raise _Refused(
            "Railway answers with an error",
            said=mask("; ".join(messages))[:WORDS_SHOWN],
            hint=_HINT,
        )
    data = document.get("data")
    if answer.status != _OK or not isinstance(data, dict) or len(data) != 1:
        raise _Refused(f"Railway answers {answer.status} without data", hint=_HINT)
    return next(iter(data.values()))


def _retry_after(answer: Answer) -> float:
    try:
        return Retry().parse_retry_after(answer.headers.get("Retry-After", "0"))
    except InvalidHeader:
        return 0.0


@dataclass(frozen=True)
class Railway:
    """A service on Railway that is built from a repository; a version is a commit."""

    settings: RailwaySettings
    clock: Clock = field(default_factory=Clock)

    @cached_property
    def _api(self) -> _Api:
        token = self.settings.resolve_token()
        hide(token)
        return _Api(self.settings.url, token, self.clock)

    @cached_property
    def _place(self) -> dict[str, str]:
        """Where the token is valid: a project and one environment of it."""
        found = self._api.ask(_TOKEN, self.clock.now() + _ASK_SECONDS)
        try:
            return {name: str(found[name]) for name in ("projectId", "environmentId")}
        except (LookupError, TypeError):
            raise DeployFailed("Railway knows no project token", hint=_HINT) from None

    def require(self, version: str) -> None:
        """See `Deployer`: it is a commit."""
        if not re.fullmatch("[0-9a-f]{40}", version):
            raise ReleaseRefused(
                f"{version!r} is not a commit",
                hint="Name all 40 digits of it: `git rev-parse HEAD`.",
            )

    def current(self) -> str:
        """See `Deployer`: the commit of the newest deployment that was successful."""
        deployed = _deployed(self._deployments(self.clock.now() + _ASK_SECONDS))
        return deployed.version if deployed else ""

    def deploy(self, version: str) -> str:
        """See `Deployer`: success is a status that is known to be good."""
        deadline = self._deadline
        known = self._deployments(deadline)
        newest = known[0] if known else None
        if newest and newest.version == version and newest.status not in _BAD:
            said: Any = newest.id  # begun by a run that was cut short
        else:
            said = self._api.change(
                _DEPLOY,
                deadline,
                commitSha=version,
                serviceId=self.settings.service,
                environmentId=self._place["environmentId"],
            )
        new = str(said or self._appeared(version, known, deadline))
        self._follow(new, version, deadline)
        return new

    def return_to(self, version: str) -> str:
        """See `Deployer`: with the image and variables of then, if they are kept."""
        deadline = self._deadline
        known = self._all_done(deadline)
        deployed = _deployed(known)
        if deployed and deployed.version == version and deployed.status in _GOOD:
            return deployed.id
        kept = [e for e in known if e.version == version and e.can_roll_back]
        if not kept:
            return self.deploy(version)
        if self._api.change(_ROLL_BACK, deadline, id=kept[0].id) is False:
            raise DeployFailed(f"Railway did not roll back to {version}", hint=_HINT)
        new = self._appeared(version, known, deadline)
        self._follow(new, version, deadline)
        return new

    def configuration(self) -> Mapping[str, bytes]:
        """See `Deployer`: the variables of the service."""
        found = self._api.ask(
            _VARIABLES,
            self.clock.now() + _ASK_SECONDS,
            serviceId=self.settings.service,
            **self._place,
        )
        return {"variables": json.dumps(found, sort_keys=True).encode()}

    @property
    def _deadline(self) -> float:
        return self.clock.now() + self.settings.deadline.total_seconds()

    def _deployments(self, deadline: float) -> list[_Deployment]:
        """Return the deployments of the service, the newest first."""
        found = self._api.ask(
            _LIST,
            deadline,
            input={"serviceId": self.settings.service, **self._place},
            first=_LISTED,
        )
        try:
            nodes = [each["node"] for each in found["edges"]]
            nodes.sort(key=lambda each: str(each["createdAt"]), reverse=True)
            return [_deployment(each) for each in nodes]
        except (LookupError, TypeError):
            raise DeployFailed(
                "Railway's list of deployments is not understood", hint=_HINT
            ) from None

    def _all_done(self, deadline: float) -> list[_Deployment]:
        """Return the deployments of the service; cancel those that are not done.

        They would replace what runs when they are done; one of them may just be.

        Raises:
            DeployFailed: one goes on.
        """
        for pause in _pauses():
            known = self._deployments(deadline)
            left = [each for each in known if each.status not in _GOOD | _BAD]
            if not left:
                break
            if self.clock.now() + pause > deadline:
                status = f"{left[0].status}{_NOT_CANCELLED}"
                raise _failed(left[0].id, left[0].version, status)
            for each in left:
                self._cancel(each.id)
            self.clock.wait(pause)
        return known

    def _appeared(
        self, version: str, known: Collection[_Deployment], deadline: float
    ) -> str:
        """Return the newest deployment of a version that is not known yet."""
        before = {each.id for each in known}
        deadline = min(deadline, self.clock.now() + _APPEAR_SECONDS)
        for pause in _pauses():
            for each in self._deployments(deadline):
                if each.version == version and each.id not in before:
                    return each.id
            if self.clock.now() + pause > deadline:
                break
            self.clock.wait(pause)
        raise DeployFailed(f"Railway began no deployment of {version}", hint=_HINT)

    def _follow(self, deployment: str, version: str, deadline: float) -> None:
        """Wait until a deployment is successful.

        Raises:
            DeployFailed: it failed, or it was not done in time, and is cancelled.
        """
        status, said = "unknown", ""
        try:
            for pause in _pauses():
                found = self._api.ask(_STATUS, deadline, id=deployment)
                status = str(found["status"])
                if status in _GOOD:
                    return
                if status in _BAD or self.clock.now() + pause > deadline:
                    break
                self.clock.wait(pause)
        except DeployFailed as error:
            status, said = f"unknown: {error.summary}", error.said
        except (LookupError, TypeError):
            status = "unknown: its status is missing"
        if not (status in _BAD or self._cancel(deployment)):
            status += _NOT_CANCELLED
        raise _failed(deployment, version, status).replace(said=said)

    def _cancel(self, deployment: str) -> bool:
        """Cancel a deployment that is not done; return whether Railway says so."""
        deadline = self.clock.now() + _ASK_SECONDS
        try:
            return bool(self._api.change(_CANCEL, deadline, id=deployment))
        except DeployFailed:
            return False


def _pauses() -> Iterator[float]:
    """Yield how long to wait, without end."""
    pause = _PAUSE_SECONDS_MIN
    while True:
        yield pause
        pause = min(2 * pause, _PAUSE_SECONDS_MAX)


def _failed(deployment: str, version: str, status: str) -> DeployFailed:
    return DeployFailed(
        f"the deployment {deployment} of {version} has the status {status}", hint=_HINT
    )


def _deployment(node: Mapping[str, Any]) -> _Deployment:
    meta = node.get("meta")
    return _Deployment(
        id=str(node["id"]),
        status=str(node["status"]),
        version=str(meta.get("commitHash", "")) if isinstance(meta, dict) else "",
        can_roll_back=node["canRollback"] is True,
    )


def _deployed(known: Collection[_Deployment]) -> _Deployment | None:
    return next((each for each in known if each.status in _DEPLOYED), None)
