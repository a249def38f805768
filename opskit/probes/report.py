"""Report: what a service was asked and how it answered, for people and programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

from opskit.checks import Check, cell, count
from opskit.config.smoke import Profile
from opskit.log import mask
from opskit.probes.baseline import Known
from opskit.terminal import printable


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of one probe: passed, failed, or None for inconclusive.

    `known` is the entry of the baseline that excuses it. The check of what was not
    `asked` says why.
    """

    family: str
    check: Check
    known: Known | None = None
    asked: bool = True

    @property
    def gates(self) -> bool:
        """Whether it keeps the whole from passing."""
        is_excused = self.check.advisory or self.known is not None
        return not self.check.passed and not is_excused

    @property
    def verdict(self) -> str:
        """What became of it, in words."""
        words = {True: "passed", False: "failed", None: "inconclusive"}
        verdict = words[self.check.passed]
        if self.check.passed or self.gates:
            return verdict
        return f"{verdict} ({'known' if self.known else 'advisory'})"

    @property
    def notes(self) -> list[str]:
        """What to know besides what was expected and observed."""
        notes = [self.check.detail] if self.check.detail else []
        if self.known is None:
            return notes
        if self.check.passed:
            return [*notes, "it passes now: remove it from the baseline"]
        return [
            *notes,
            f"known to {self.known.owner} until {self.known.expires}: "
            + self.known.reason,
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        named = {"name": self.check.name, "family": self.family}
        return (
            named
            | self.check.as_json()
            | {
                "detail": "; ".join(self.notes),
                "advisory": self.check.advisory,
            }
        )


@dataclass(frozen=True, kw_only=True)
class SmokeReport:
    """What was asked of a service, and how it answered."""

    url: str
    profile: Profile
    started_at: datetime
    findings: tuple[Finding, ...]
    not_configured: tuple[str, ...]
    not_in_profile: tuple[str, ...] = ()
    requests: int
    seconds: float

    @property
    def gating(self) -> list[Check]:
        """What keeps the whole from passing."""
        return [each.check for each in self.findings if each.gates]

    @property
    def status(self) -> str:
        """In a word: a wrong answer is worse than none."""
        if any(each.failed for each in self.gating):
            return "failed"
        return "inconclusive" if self.gating else "passed"

    @property
    def left_out(self) -> dict[str, tuple[str, ...]]:
        """The families of which nothing was asked, by the reason."""
        reasons = {
            "not configured": self.not_configured,
            "not in profile": self.not_in_profile,
        }
        return {reason: names for reason, names in reasons.items() if names}

    @property
    def summary(self) -> str:
        """How it went, in a line."""
        passed = sum(1 for each in self.findings if each.check.passed)
        return (
            f"{self.status}: {passed} of {count(len(self.findings), 'probe')} passed, "
            f"{count(self.requests, 'request')}, {self.seconds:.1f} s"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "url": self.url,
            "profile": self.profile.value,
            "checks": [each.as_json() for each in self.findings],
            "known": [e.check.name for e in self.findings if e.known is not None],
            "not_configured": list(self.not_configured),
            "not_in_profile": list(self.not_in_profile),
            "requests": self.requests,
            "seconds": self.seconds,
        }


def lines(finding: Finding) -> Iterable[str]:
    """Yield what a person is shown of a probe: why, only if it did not pass."""
    check = finding.check
    yield f"{finding.verdict:<14}  {check.name}"
    if not check.passed:
        yield from (
            f"                  {name} {text}"
            for name, text in (
                ("expected", check.expected),
                ("observed", check.observed),
            )
            if text
        )
    yield from (f"                  {each}" for each in finding.notes)


def junit(report: SmokeReport) -> str:
    """Return the report as JUnit's XML: a test case for each probe.

    What is wrong is a failure, what is inconclusive an error; what does not count, and
    families that were left out, are skipped.
    """
    suite = ElementTree.Element("testsuite", name="smoke", hostname=_plain(report.url))
    kinds = []
    for each in report.findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname=each.family, name=each.check.name
        )
        if each.check.passed:
            continue
        kind = "failure" if each.check.failed else "error"
        kinds.append(kind if each.gates else "skipped")
        message = f"{each.verdict}: expected {each.check.expected or 'an answer'}, "
        message += f"observed {each.check.observed or 'none'}"
        element = ElementTree.SubElement(case, kinds[-1], message=_plain(message))
        element.text = _plain("; ".join(each.notes))
    for reason, names in report.left_out.items():
        for name in names:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=name)
            ElementTree.SubElement(case, "skipped", message=reason)
            kinds.append("skipped")
    suite.attrib |= {
        "tests": str(len(suite)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
        "time": f"{report.seconds:.3f}",
        "timestamp": f"{report.started_at:%Y-%m-%dT%H:%M:%S}",
    }
    properties = ElementTree.Element("properties")
    ElementTree.SubElement(
        properties, "property", name="requests", value=str(report.requests)
    )
    suite.insert(0, properties)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(report: SmokeReport) -> str:
    """Return the report in Markdown, for the evidence of a release."""
    rows = "\n".join(
        "| {} | {} | {} | {} | {} |".format(
            each.verdict if each.check.passed else f"**{each.verdict}**",
            *(
                cell(mask(text))
                for text in (
                    each.check.name,
                    each.check.expected,
                    each.check.observed,
                    "; ".join(each.notes),
                )
            ),
        )
        for each in report.findings
    )
    left_out = "\n".join(
        f"| {reason} | {', '.join(names)} |"
        for reason, names in report.left_out.items()
    )
    return f"""\
# Smoke: {report.status}

{report.summary[0].upper()}{report.summary[1:]}.

| | |
|---|---|
| service | {cell(mask(report.url))} |
| profile | {report.profile.value} |
| begun | {report.started_at:%Y-%m-%dT%H:%M:%SZ} |
{left_out}

| | probe | expected | observed | detail |
|---|---|---|---|---|
{rows}
"""


def _plain(text: str) -> str:
    """Return a text that XML can hold, without secrets."""
    return printable(mask(text))
