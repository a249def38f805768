"""A platform like Railway: the used part of its published schema, and its faults."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from graphql import GraphQLError, build_schema, graphql_sync, parse

# Names, arguments and types as published; what is not used is left out. Of the statuses,
# CANCELLED has been met without being published, and FROZEN is one that nobody knows.
SCHEMA = """
scalar DateTime
scalar EnvironmentVariables
scalar DeploymentMeta
enum DeploymentStatus {
  BUILDING CRASHED DEPLOYING FAILED INITIALIZING NEEDS_APPROVAL QUEUED REMOVED REMOVING
  SKIPPED SLEEPING SUCCESS WAITING CANCELLED FROZEN
}
input DeploymentStatusInput { in: [DeploymentStatus!] notIn: [DeploymentStatus!] }
input DeploymentListInput {
  environmentId: String includeDeleted: Boolean projectId: String serviceId: String
  status: DeploymentStatusInput
}
type Deployment {
  canRedeploy: Boolean! canRollback: Boolean! createdAt: DateTime! environmentId: String!
  id: ID! meta: DeploymentMeta projectId: String! serviceId: String
  status: DeploymentStatus!
}
type QueryDeploymentsConnectionEdge { cursor: String! node: Deployment! }
type QueryDeploymentsConnection { edges: [QueryDeploymentsConnectionEdge!]! }
type ProjectToken { id: ID! name: String! projectId: String! environmentId: String! }
type Query {
  deployment(id: String!): Deployment!
  deployments(
    after: String before: String first: Int input: DeploymentListInput! last: Int
  ): QueryDeploymentsConnection!
  projectToken: ProjectToken!
  variables(
    environmentId: String! pluginId: String projectId: String! serviceId: String
    unrendered: Boolean
  ): EnvironmentVariables!
}
type Mutation {
  deploymentCancel(id: String!): Boolean!
  deploymentRollback(id: String!): Boolean!
  serviceInstanceDeployV2(
    commitSha: String environmentId: String! serviceId: String!
  ): String!
}
"""
SERVICE, PROJECT, ENVIRONMENT = "service-1", "project-1", "environment-1"
TOKEN = "6f1d2c3b-project-token-of-a-test"
_SUCCESS, _UNFINISHED = "SUCCESS", {"BUILDING", "QUEUED", "NEEDS_APPROVAL", "FROZEN"}
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What happens to one request instead of its being answered.

    `error` is answered with 200; `is_lost` means that it is done, and the answer lost.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    error: str = ""
    body: bytes = b"<html>"
    is_reset: bool = False
    is_lost: bool = False


@dataclass
class Deployment:
    """A deployment, and the statuses that it still goes through."""

    id: str
    commit: str
    statuses: list[str]
    created: int
    can_roll_back: bool = True

    @property
    def status(self) -> str:
        """What it is now."""
        return self.statuses[0]

    def as_node(self) -> dict[str, Any]:
        """Return its fields."""
        return {
            "id": self.id,
            "status": self.status,
            "createdAt": f"2026-11-30T10:{self.created // 60:02}:{self.created % 60:02}Z",
            "canRollback": self.can_roll_back,
            "meta": {"commitHash": self.commit, "branch": "main"},
        }


@dataclass
class Platform:
    """The state of one service.

    `next_statuses` are those of the next new deployments; `faults` are met by requests
    for a field, in turn.
    """

    url: str = ""
    deployments: list[Deployment] = field(default_factory=list)
    next_statuses: list[list[str]] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    rolls_back: bool = True
    cancels: bool = True
    variables: dict[str, str] = field(default_factory=dict)
    also_begins: str = ""
    guard: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, commit: str, statuses: list[str] | None = None) -> Deployment:
        """Begin a deployment; return it."""
        number = len(self.deployments) + 1
        planned = self.next_statuses.pop(0) if self.next_statuses else []
        new = Deployment(
            id=f"deployment-{number}",
            commit=commit,
            statuses=statuses or planned or ["BUILDING", "DEPLOYING", _SUCCESS],
            created=number,
        )
        self.deployments.append(new)
        return new

    def status(self, number: int) -> str:
        """Return the status of a deployment, counted from 1."""
        return self.deployments[number - 1].status

    def _advance(self, one: Deployment) -> None:
        if len(one.statuses) > 1:
            one.statuses.pop(0)
        if one.status == _SUCCESS:
            for each in self.deployments:
                if each.created < one.created and each.status == _SUCCESS:
                    each.statuses = ["REMOVED"]

    def _require(self, given: dict[str, Any], **expected: str) -> None:
        if {name: given.get(name) for name in expected} != expected:
            raise GraphQLError("Not Authorized")

    def _named(self, name: str) -> Deployment:
        for each in self.deployments:
            if each.id == name:
                return each
        raise GraphQLError("Deployment not found")

    # The fields of the schema.
    def projectToken(self, _info: Any) -> dict[str, str]:
        return {"id": "1", "projectId": PROJECT, "environmentId": ENVIRONMENT}

    def variables_(self, _info: Any, **given: str) -> dict[str, str]:
        place = {"projectId": PROJECT, "environmentId": ENVIRONMENT}
        self._require(given, serviceId=SERVICE, **place)
        return self.variables

    def deployments_(self, given: dict[str, Any], first: int) -> dict[str, Any]:
        place = {"projectId": PROJECT, "environmentId": ENVIRONMENT}
        self._require(given, serviceId=SERVICE, **place)
        newest = sorted(self.deployments, key=lambda each: -each.created)[:first]
        return {"edges": [{"cursor": e.id, "node": e.as_node()} for e in newest]}

    def deployment(self, _info: Any, id: str) -> dict[str, Any]:
        found = self._named(id)
        self._advance(found)
        return found.as_node()

    def deploymentCancel(self, _info: Any, id: str) -> bool:
        found = self._named(id)
        if found.status in _UNFINISHED and self.cancels:
            found.statuses = ["CANCELLED"]
            return True
        self._advance(found)
        return False

    def deploymentRollback(self, _info: Any, id: str) -> bool:
        found = self._named(id)
        if not found.can_roll_back:
            raise GraphQLError("Deployment cannot be rolled back")
        if self.rolls_back:
            self._begin_two(found.commit)
        return True

    def serviceInstanceDeployV2(self, _info: Any, **given: str) -> str:
        self._require(given, serviceId=SERVICE, environmentId=ENVIRONMENT)
        return self._begin_two(given["commitSha"]).id

    def _begin_two(self, commit: str) -> Deployment:
        new = self.begin(commit)
        if self.also_begins:
            self.begin(self.also_begins)
        return new

    def answer(self, document: dict[str, Any]) -> dict[str, Any]:
        """Answer a request as the schema says."""
        result = graphql_sync(
            _SCHEMA,
            document["query"],
            root_value={
                "projectToken": self.projectToken,
                "variables": self.variables_,
                "deployment": self.deployment,
                "deployments": lambda _info, input, first: self.deployments_(
                    input, first
                ),
                "deploymentCancel": self.deploymentCancel,
                "deploymentRollback": self.deploymentRollback,
                "serviceInstanceDeployV2": self.serviceInstanceDeployV2,
            },
            variable_values=document.get("variables"),
        )
        return dict(result.formatted)


_SCHEMA = build_schema(SCHEMA)


def _asked_field(document: dict[str, Any]) -> str:
    (operation,) = parse(document["query"]).definitions
    (selected,) = operation.selection_set.selections  # type: ignore[attr-defined]
    return str(selected.name.value)


class _Handler(BaseHTTPRequestHandler):
    platform: Platform

    def do_POST(self) -> None:
        platform = self.platform
        body = self.rfile.read(int(self.headers["Content-Length"]))
        document = json.loads(body)
        asked = _asked_field(document)
        with platform.guard:
            platform.asked.append(asked)
            faults = platform.faults.get(asked)
            fault = faults.pop(0) if faults else None
            answer = b""
            if fault is None or fault.is_lost:
                answer = json.dumps(self._answer(document)).encode()
        if fault is None:
            self._send(200, {}, answer)
        elif fault.is_reset or fault.is_lost:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close_connection = True
        elif fault.error:
            error = {"data": None, "errors": [{"message": fault.error}]}
            self._send(200, {}, json.dumps(error).encode())
        else:
            self._send(fault.status, fault.headers, fault.body)

    def _answer(self, document: dict[str, Any]) -> dict[str, Any]:
        if self.headers.get("Project-Access-Token") != TOKEN:
            return {"data": None, "errors": [{"message": "Not Authorized"}]}
        return self.platform.answer(document)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Callable[[], Platform]]:
    """Serve platforms on loopback, one at a time: what is yielded makes the next one."""
    handler = type("_OwnHandler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()

        def make() -> Platform:
            made = Platform(f"http://127.0.0.1:{server.server_port}/graphql/v2")
            handler.platform = made  # type: ignore[attr-defined]
            return made

        try:
            yield make
        finally:
            server.shutdown()
            thread.join(60)
            assert not thread.is_alive()
