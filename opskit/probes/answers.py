"""Answers of every kind, errors too, for probes of what each of them must have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from opskit.checks import Check
from opskit.config.probes import AnswerSettings
from opskit.config.smoke import SmokeSettings
from opskit.probes.probe import WrongAnswer, faultless
from opskit.probes.session import Answer, Session

# Nobody has such a path.
_NO_PATH = "/opskit-asks-for-a-path-that-is-not-there"

Judge = Callable[[Answer], str]


def examined(
    settings: SmokeSettings, expected: str, judge: Judge, *, identified: bool = True
) -> Callable[[Session], Check]:
    """Return what asks for each answer; `judge` says what is wrong with one."""

    def ask(session: Session) -> Check:
        return faultless(
            f"on every answer: {expected}",
            (
                f"{asked.method} {asked.path} ({answer.status}): {fault}"
                for asked in _asked(settings)
                if (fault := judge(answer := _answer(session, asked, identified)))
            ),
        )

    return ask


def _asked(settings: SmokeSettings) -> Iterator[AnswerSettings]:
    yield AnswerSettings(path=settings.version.path)
    yield AnswerSettings(path=_NO_PATH)
    yield AnswerSettings(path=settings.version.path, method="POST")
    yield from settings.headers.answers


def _answer(session: Session, asked: AnswerSettings, identified: bool) -> Answer:
    answer = session.request(
        asked.method,
        asked.path,
        key=asked.key,
        body=asked.body.encode(),
        headers={"Content-Type": "application/json"} if asked.body else {},
        identified=identified,
    )
    if asked.status not in (0, answer.status):
        raise WrongAnswer(
            expected=f"{asked.status} for {asked.method} {asked.path}",
            observed=str(answer.status),
        )
    return answer
