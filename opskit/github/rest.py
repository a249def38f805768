"""The REST interface of GitHub, for one repository."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from opskit import __version__
from opskit.errors import ConfigurationError, GitHubError
from opskit.log import hide, last_words
from opskit.watch.deliveries import pool, reason_of

_SECONDS, _REQUEST_SECONDS = 180.0, 30.0
_PAUSES_SECONDS = (1.0, 3.0, 9.0, 27.0)
_SECONDARY_LIMIT_SECONDS = 60.0
_ANSWER_BYTES_MAX = 32 * 1024 * 1024
_PAGES_MAX, _REDIRECTS_MAX = 50, 3
_REPOSITORY = re.compile(r"(?!\.+/)[\w.-]+/(?!\.+$)[\w.-]+")
_NEXT_PAGE = re.compile(r'<([^>]+)>;\s*rel="next"')
_REDIRECTS = frozenset({301, 302, 307, 308})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_NOT_GITHUB = "Correct GITHUB_API_URL: what answers there is not GitHub's interface."

_T = TypeVar("_T")


class _Passing(GitHubError):
    """GitHub did not answer, or wants to be asked later; `pause` is how much later."""

    def __init__(self, summary: str, *, pause: float = 0.0) -> None:
        hint = "Run this again; https://www.githubstatus.com says how GitHub is."
        super().__init__(summary, hint=hint)
        self.pause = pause


@dataclass(kw_only=True)
class GitHub:
    """One repository on GitHub, by its REST interface; the token is never shown.

    All waiting together takes a few minutes at most.
    """

    api: str
    repository: str
    token: str = field(repr=False)
    run_url: str = ""
    run_name: str = ""
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], object] = time.sleep
    seconds: float = _SECONDS

    def __post_init__(self) -> None:
        address = urlsplit(self.api)
        if address.scheme != "https" and address.hostname not in _LOOPBACK:
            raise ConfigurationError(
                f"the token is not sent to {self.api}: it is not encrypted",
                hint="GITHUB_API_URL must begin with https://.",
            )
        if not _REPOSITORY.fullmatch(self.repository):
            raise ConfigurationError(
                f"GITHUB_REPOSITORY is not OWNER/NAME: {self.repository!r}",
                hint="A workflow sets it; elsewhere set it yourself.",
            )
        if not (self.token.isascii() and self.token.isprintable()):
            raise ConfigurationError(
                "GITHUB_TOKEN has characters that no token has",
                hint="Store the secret again, without the end of its line.",
            )
        hide(self.token)
        self._deadline = self.clock() + self.seconds

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> GitHub:
        """Return the repository that a workflow's environment names.

        Raises:
            ConfigurationError: this is no workflow, or it was not given the token.
        """
        missing = [
            name
            for name in ("GITHUB_REPOSITORY", "GITHUB_TOKEN")
            if not environment.get(name)
        ]
        if missing:
            raise ConfigurationError(
                f"{missing[0]} is not set",
                hint="Run this in a workflow of GitHub, and set GITHUB_TOKEN in the "
                "`env` of its step to ${{ github.token }}.",
            )
        repository = environment["GITHUB_REPOSITORY"]
        run = environment.get("GITHUB_RUN_ID", "")
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        return cls(
            api=environment.get("GITHUB_API_URL") or "https://api.github.com",
            repository=repository,
            token=environment["GITHUB_TOKEN"],
            run_url=f"{server}/{repository}/actions/runs/{run}" if run else "",
            run_name=f"{run}/{environment.get('GITHUB_RUN_ATTEMPT', '1')}",
        )

    def patiently(self, work: Callable[[], _T]) -> _T:
        """Do work that looks at what is there first, again while GitHub is away.

        Raises:
            GitHubError: it refuses, or was not there until the deadline.
        """
        for least in (*_PAUSES_SECONDS, float("inf")):
            try:
                return work()
            except _Passing as error:
                pause = max(error.pause, least)
                if self.clock() + pause > self._deadline:
                    raise
                self.sleep(pause)
            except (KeyError, TypeError, AttributeError) as error:
                raise GitHubError(
                    f"an answer of GitHub is not understood: {error}", hint=_NOT_GITHUB
                ) from error
        raise AssertionError("the last pause is endless")

    def ask(
        self, method: str, path: str, document: object = None, *, needs: str
    ) -> Any:
        """Ask once; `needs` is the permission that this takes."""
        answer, _headers = self._ask(method, self._url(path), document, needs)
        return answer

    def pages(self, path: str, *, needs: str, **query: str) -> Iterator[Any]:
        """Yield the entries of every page of a list."""
        url = self._url(path) + "?" + urlencode({"per_page": "100", **query})
        for _number in range(_PAGES_MAX):
            entries, headers = self._ask("GET", url, None, needs)
            if not isinstance(entries, list):
                raise GitHubError("the answer of GitHub is no list", hint=_NOT_GITHUB)
            yield from entries
            following = _NEXT_PAGE.search(headers.get("Link", ""))
            if following is None:
                return
            url = self._near(url, following[1])
        raise GitHubError(
            f"GitHub has more than {_PAGES_MAX * 100} entries of {path}",
            hint="Close what is not needed any more.",
        )

    def _url(self, path: str) -> str:
        return f"{self.api.rstrip('/')}/repos/{self.repository}{path}"

    def _near(self, url: str, other: str) -> str:
        """Return another address if it is of the same server.

        Raises:
            GitHubError: it is not; the token is not sent there.
        """
        target = urljoin(url, other)
        if urlsplit(target)[:2] != urlsplit(url)[:2]:
            raise GitHubError(
                f"GitHub refers to another server: {urlsplit(target).netloc}",
                hint="The token is not sent there. Correct GITHUB_API_URL.",
            )
        return target

    def _ask(
        self, method: str, url: str, document: object, needs: str
    ) -> tuple[Any, Mapping[str, str]]:
        for _number in range(_REDIRECTS_MAX + 1):
            status, headers, content = self._send(method, url, document)
            if status not in _REDIRECTS or "Location" not in headers:
                break
            # A repository that was renamed: the same question there.
            url = self._near(url, headers["Location"])
        try:
            answer = json.loads(content) if content else None
        except ValueError:
            answer = content.decode(errors="replace")
        if status in range(200, 300) and not isinstance(answer, str):
            return answer, headers
        raise self._error(
            status, headers, answer, f"{method} {urlsplit(url).path}", needs
        )

    def _send(
        self, method: str, url: str, document: object
    ) -> tuple[int, Mapping[str, str], bytes]:
        from urllib3.exceptions import HTTPError
        from urllib3.util import Timeout

        address = urlsplit(url)
        seconds = min(_REQUEST_SECONDS, self._deadline - self.clock())
        if seconds <= 0:
            raise _Passing(f"GitHub did not answer all within {self.seconds:.0f} s")
        try:
            with pool(address.scheme, address.hostname or "") as connections:
                response = connections.request(
                    method,
                    url,
                    body=None if document is None else json.dumps(document).encode(),
                    headers=self._headers,
                    timeout=Timeout(total=seconds),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
                try:
                    return response.status, response.headers, self._read(response)
                finally:
                    response.close()
        except (HTTPError, OSError) as error:
            said = reason_of(error, seconds)
            raise _Passing(f"GitHub did not answer: {said}") from None

    @property
    def _headers(self) -> dict[str, str]:
        return {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "User-Agent": f"opskit/{__version__}",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def _read(self, response: Any) -> bytes:
        """Return what was answered; neither its size nor its time is without an end."""
        content = b""
        while piece := response.read1(65536):
            content += piece
            if len(content) > _ANSWER_BYTES_MAX or self.clock() > self._deadline:
                raise _Passing("GitHub's answer is too long or too slow")
        return content

    def _error(
        self,
        status: int,
        headers: Mapping[str, str],
        answer: Any,
        question: str,
        needs: str,
    ) -> GitHubError:
        said = _said(answer)
        if pause := self._pause(status, headers, said):
            until = datetime.fromtimestamp(self.clock() + pause, UTC)
            return _Passing(
                f"GitHub's rate limit is used up until {until:%H:%M:%S} UTC",
                pause=pause,
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _Passing(f"GitHub answered {status}: {question}")
        hints = {
            401: "The value of GITHUB_TOKEN has expired or is not valid.",
            403: f"Give the job the permission `{needs}`.",
            404: f"The repository lacks it, or the token may not see it: give the job "
            f"the permission `{needs}`.",
            410: "Switch on issues in the settings of the repository.",
        }
        hint = hints.get(status, _NOT_GITHUB if isinstance(answer, str) else "")
        if "not permitted to create or approve pull requests" in said:
            hint = (
                "Allow it in the repository: Settings, Actions, General, 'Allow GitHub "
                "Actions to create and approve pull requests'."
            )
        return GitHubError(
            f"GitHub answered {status}: {question}", said=said, hint=hint
        )

    def _pause(self, status: int, headers: Mapping[str, str], said: str) -> float:
        """Return how long GitHub wants not to be asked; 0 if this is another error."""
        if status not in (403, 429):
            return 0.0
        if headers.get("Retry-After", "").isdigit():
            return max(1.0, float(headers["Retry-After"]))
        reset = headers.get("X-RateLimit-Reset", "")
        if headers.get("X-RateLimit-Remaining") == "0" and reset.isdigit():
            return max(1.0, float(reset) - self.clock())
        is_limit = status == 429 or "secondary rate limit" in said
        return _SECONDARY_LIMIT_SECONDS if is_limit else 0.0


def _said(answer: Any) -> str:
    """Return the words of an error of GitHub, with its list of what is not valid."""
    if not isinstance(answer, dict):
        return ""
    several = answer.get("errors")
    details = [
        str(each.get("message") or f"{each.get('field')} {each.get('code')}")
        if isinstance(each, dict)
        else str(each)
        for each in (several if isinstance(several, list) else [])
    ]
    return last_words("; ".join([str(answer.get("message", "")), *details]))
