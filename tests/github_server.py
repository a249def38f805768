"""A platform like GitHub: the used part of its REST interface, as documented."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "ghs_" + "a1B2c3D4e5F6" * 3
REPOSITORY = "acme/shop"
BOT = {"login": "github-actions[bot]", "type": "Bot"}


@dataclass
class Fault:
    """What happens instead of the answer, or with `after` once the work is done."""

    status: int = 0  # 0: the connection is dropped
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    body: bytes | None = None


@dataclass
class Platform:
    """One repository; `faults` are used up by the requests that match, in order."""

    address: str = ""
    issues: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    trees: dict[str, dict[str, str]] = field(default_factory=dict)
    commits: dict[str, dict[str, Any]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        tree = self.tree({"README.md": "# Shop"})
        self.refs["refs/heads/main"] = self.commit(tree, [], "Begin")

    def tree(self, content: dict[str, str]) -> str:
        sha = hashlib.sha1(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self.trees[sha] = content
        return sha

    def commit(self, tree: str, parents: list[str], message: str) -> str:
        made = {"tree": {"sha": tree}, "parents": parents, "message": message}
        sha = hashlib.sha1(json.dumps(made).encode()).hexdigest()
        self.commits[sha] = made | {"sha": sha}
        return sha

    def issue(self, body: str, *, user: Any = BOT, **more: Any) -> dict[str, Any]:
        number = len(self.issues) + 1
        made = {
            "number": number, "title": "", "body": body, "state": "open", "user": user,
            "author_association": "NONE", "html_url": f"https://github.example/{number}",
        }  # fmt: skip
        self.issues.append(made | more)
        return self.issues[-1]

    def files(self, ref: str) -> dict[str, str]:
        return self.trees[self.commits[self.refs[ref]]["tree"]["sha"]]

    def answer(
        self, method: str, path: str, query: dict[str, str], sent: Any
    ) -> tuple[int, Any]:
        """Do what was asked, and return the status and the document."""
        for pattern, work in _ROUTES:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                return work(self, query, sent, *match.groups())
        return 404, {"message": "Not Found", "status": "404"}


def _list_issues(self: Platform, query: Any, _sent: Any) -> tuple[int, Any]:
    return 200, [e for e in reversed(self.issues) if e["state"] == query["state"]]


def _open_issue(self: Platform, _query: Any, sent: Any) -> tuple[int, Any]:
    return 201, self.issue(sent["body"], title=sent["title"])


def _change_issue(
    self: Platform, _query: Any, sent: Any, number: str
) -> tuple[int, Any]:
    self.issues[int(number) - 1] |= sent
    return 200, self.issues[int(number) - 1]


def _list_comments(
    self: Platform, _query: Any, _sent: Any, number: str
) -> tuple[int, Any]:
    return 200, self.comments.get(int(number), [])


def _comment(self: Platform, _query: Any, sent: Any, number: str) -> tuple[int, Any]:
    self.comments.setdefault(int(number), []).append(sent)
    return 201, sent


def _list_pulls(self: Platform, query: Any, _sent: Any) -> tuple[int, Any]:
    return 200, [
        each
        for each in self.pulls
        if (each["state"], each["base"]) == (query["state"], query["base"])
        and query["head"] == f"acme:{each['head']}"
    ]


def _open_pull(self: Platform, _query: Any, sent: Any) -> tuple[int, Any]:
    url = f"https://github.example/pull/{len(self.pulls) + 1}"
    self.pulls.append(sent | {"state": "open", "html_url": url})
    return 201, self.pulls[-1]


def _list_refs(self: Platform, _query: Any, _sent: Any, prefix: str) -> tuple[int, Any]:
    return 200, [
        {"ref": ref, "object": {"sha": sha}}
        for ref, sha in self.refs.items()
        if ref.startswith(f"refs/{prefix}")
    ]


def _make_tree(self: Platform, _query: Any, sent: Any) -> tuple[int, Any]:
    content = self.trees[sent["base_tree"]] | {
        e["path"]: e["content"] for e in sent["tree"]
    }
    return 201, {"sha": self.tree(content)}


def _make_commit(self: Platform, _query: Any, sent: Any) -> tuple[int, Any]:
    return 201, {"sha": self.commit(sent["tree"], sent["parents"], sent["message"])}


def _make_ref(self: Platform, _query: Any, sent: Any) -> tuple[int, Any]:
    if sent["ref"] in self.refs:
        return 422, {"message": "Reference already exists"}
    self.refs[sent["ref"]] = sent["sha"]
    return 201, sent


def _move_ref(self: Platform, _query: Any, sent: Any, name: str) -> tuple[int, Any]:
    parents = self.commits[sent["sha"]]["parents"]
    if not sent["force"] and self.refs[f"refs/{name}"] not in parents:
        return 422, {"message": "Update is not a fast forward"}
    self.refs[f"refs/{name}"] = sent["sha"]
    return 200, sent


_ROUTES = (
    (r"GET ", lambda _self, _query, _sent: (200, {"default_branch": "main"})),
    (r"GET /issues", _list_issues),
    (r"POST /issues", _open_issue),
    (r"PATCH /issues/(\d+)", _change_issue),
    (r"GET /issues/(\d+)/comments", _list_comments),
    (r"POST /issues/(\d+)/comments", _comment),
    (r"GET /pulls", _list_pulls),
    (r"POST /pulls", _open_pull),
    (r"GET /git/matching-refs/(.+)", _list_refs),
    (r"GET /git/commits/(\w+)", lambda self, _q, _s, sha: (200, self.commits[sha])),
    (r"POST /git/trees", _make_tree),
    (r"POST /git/commits", _make_commit),
    (r"POST /git/refs", _make_ref),
    (r"PATCH /git/refs/(.+)", _move_ref),
)


@contextlib.contextmanager
def platform() -> Iterator[Platform]:
    """Serve a repository on loopback."""
    served = Platform()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            path = re.sub(r"^/(repos/acme/shop|repositories/7)", "", url.path)
            served.asked.append(f"{self.command} {path}")
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._send(401, {"message": "Bad credentials", "status": "401"}, {})
                return
            if not self.headers["User-Agent"].startswith("opskit/"):
                self._send(403, {"message": "Please name a User-Agent"}, {})
                return
            fault = self._fault(f"{self.command} {path}")
            if fault is not None and not fault.after:
                self._fail(fault)
                return
            status, document = served.answer(self.command, path, query, sent)
            if fault is not None:
                self._fail(fault)
                return
            self._send(status, *self._page(document, query, url.path))

        do_POST = do_PATCH = do_GET

        def _fault(self, asked: str) -> Fault | None:
            if served.faults and re.fullmatch(served.faults[0][0], asked):
                return served.faults.pop(0)[1]
            return None

        def _fail(self, fault: Fault) -> None:
            if fault.status:
                document = {"message": fault.message, "status": str(fault.status)}
                self._send(fault.status, document, fault.headers, fault.body)
            else:
                # A reset: with what was not sent yet the other end gets nothing.
                option = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                self.close_connection = True

        def _page(
            self, document: Any, query: dict[str, str], path: str
        ) -> tuple[Any, dict[str, str]]:
            if not isinstance(document, list):
                return document, {}
            size, page = int(query["per_page"]), int(query.get("page", 1))
            headers = {}
            if len(document) > size * page:
                rest = "&".join(f"{k}={v}" for k, v in query.items() if k != "page")
                following = f"{served.address}{path}?{rest}&page={page + 1}"
                headers = {"Link": f'<{following}>; rel="next"'}
            return document[size * (page - 1) : size * page], headers

        def _send(
            self,
            status: int,
            document: Any,
            headers: dict[str, str],
            body: bytes | None = None,
        ) -> None:
            content = json.dumps(document).encode() if body is None else body
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join(60)
            assert not thread.is_alive()
