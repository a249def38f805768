"""Probes of access: each passes on a service that is right, and fails where it is wrong."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.errors import ConfigurationError
from opskit.probes import audit, authentication, authorisation, pagination
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer
from opskit.probes.session import Session, Target
from tests.asgi import serving
from tests.small_service import (
    CLAIMS,
    DEFAULT_SIZE,
    JWT_SECRET,
    KEYS,
    SIZE_MAX,
    Service,
)

_SECONDS = 60.0
# For probes that wait for what does not come.
_FEW_SECONDS = 2.0
_PING = {"send": {"type": "ping"}, "expect": {"type": "pong"}}
_CHANGE = {"title": "smoke"}
SETTINGS: dict[str, Any] = {
    "lists": {
        "tasks": {
            "path": "/api/tasks",
            "key": "writer",
            "total": "total",
            "limit": "limit",
            "default_size": DEFAULT_SIZE,
            "size_max": SIZE_MAX,
            "fill": {"title": "smoke"},
        },
        "trail": {"path": "/api/audit", "key": "admin", "size_max": SIZE_MAX},
    },
    "resources": {
        "task": {
            "path": "/api/tasks/{task}",
            "owner": "writer",
            "listed_in": "tasks",
            "body": {"title": "smoke"},
            "change": _CHANGE,
        }
    },
    "authentication": {
        "routes": [
            {"path": "/api/tasks", "key": "writer"},
            {"path": "/api/tasks/{task}", "key": "writer"},
            {"path": "/api/forgotten", "key": "reader"},
            {"method": "POST", "path": "/api/tasks", "key": "writer", "status": 422},
        ],
        "bypass": ["/health"],
        "streams": [
            {
                "path": "/api/events",
                "key": "writer",
                "trigger": {
                    "method": "PATCH",
                    "path": "/api/tasks/{task}",
                    "key": "writer",
                    "body": _CHANGE,
                },
            }
        ],
        "websockets": [
            {"path": "/api/ws", "key": "writer", **_PING},
            {"path": "/api/ws", "key": "writer", "parameter": "token", **_PING},
        ],
        "token": {"path": "/api/forgotten", "claims": CLAIMS},
    },
    "authorisation": {
        "others": ["other", "reader"],
        "reader": "reader",
        "reads": ["/api/tasks"],
        "writes": [
            {"method": "POST", "path": "/api/tasks", "key": "writer", "status": 422}
        ],
        "forbidden": [{"path": "/api/audit", "key": "other"}],
        "diagnostics": {
            "path": "/diagnostics",
            "enabled": True,
            "permitted": "admin",
            "refused": "writer",
        },
    },
    "audit": {
        "trail": "trail",
        "others": ["writer", "reader"],
        "action": {
            "method": "PATCH",
            "path": "/api/tasks/{task}",
            "key": "writer",
            "body": _CHANGE,
        },
    },
    "pagination": {"lists": ["tasks"]},
}
FAMILIES = (authentication, authorisation, pagination, audit)
# What is wrong, and the patterns of the probes that must notice it, and no others.
DEFECTS = {
    "open-route": "authentication.no-key authentication.wrong-* authentication.token-*",
    "403-for-401": "authentication.no-key authentication.wrong-* authentication.token-* "
    "authentication.stream-refused audit.access",
    "empty-key": "authentication.no-key",
    "any-key": "authentication.wrong-key authentication.*-refused authorisation.other-user* "
    "authorisation.lists authorisation.events authorisation.reader-writes "
    "authorisation.diagnostics audit.*",
    "prefix-only": "authentication.wrong-key authentication.*-refused",
    "prefix-cached": "authentication.wrong-key authentication.*-refused",
    "cut-key": "authentication.wrong-key",
    "any-header": "authentication.wrong-header",
    "bypass-closed": "authentication.bypass",
    "bypass-checks-keys": "authentication.bypass",
    "stream-open": "authentication.stream-refused",
    "stream-ends": "authentication.stream",
    "websocket-open": "authentication.websocket-refused",
    "no-tokens": "authentication.token",
    "exp-unverified": "authentication.token-expired",
    "exp-not-required": "authentication.token-without-expiry",
    "signature-unverified": "authentication.token-signature authentication.token-unsigned",
    "unsigned": "authentication.token-unsigned",
    "aud-unverified": "authentication.token-audience",
    "aud-not-required aud-unverified": "authentication.token-audience",
    "iss-unverified": "authentication.token-issuer",
    "nbf-unverified": "authentication.token-not-yet-valid",
    "readers-kept-out": "authentication.right-key authorisation.lists authorisation.roles",
    "no-roles": "authorisation.reader-writes authorisation.diagnostics audit.access",
    "read-any": "authorisation.other-user",
    "change-any": "authorisation.other-user-changes",
    "total-of-all": "authorisation.lists",
    "admins-only-in-name": "authorisation.reader-writes authorisation.diagnostics",
    "events-for-all": "authorisation.events",
    "list-of-all": "authorisation.lists",
    "diagnostics-open": "authorisation.diagnostics",
    "diagnostics-all": "authorisation.diagnostics",
    "audit-open": "audit.access",
    "audit-all": "audit.access",
    "actor-ignored": "audit.filters",
    "action-ignored": "audit.filters",
    "filter-empty": "audit.filters",
    "since-ignored": "audit.since",
    "no-default": "pagination.default-size",
    "limit-ignored": "pagination.default-size pagination.metadata",
    "no-cap": "pagination.size-max",
    "limit-not-told": "pagination.size-max",
    "zero": "pagination.size-max",
    "reversed-by-size": "pagination.order",
    "skips": "pagination.order pagination.metadata",
    "overlaps": "pagination.order pagination.metadata",
    "next-on-last": "pagination.metadata",
    "no-next": "pagination.order pagination.metadata",
    "total-of-page": "pagination.metadata",
    "huge-cursor": "pagination.cursor",
    "cursor-begins-again": "pagination.cursor",
}
# The same for what a probe waits for in vain.
SILENT = {
    "stream-silent": "authentication.stream",
    "websocket-silent": "authentication.websocket",
    "websocket-waits": "authentication.websocket-refused",
    "websocket-wrong": "authentication.websocket",
    "changes-not-audited": "audit.own-action",
    "no-audit": "audit.access",
}
# What is another way to be right.
RIGHT = ["websocket-4401", "cap-refused"]


@pytest.fixture
def settings(tmp_path: Path) -> SmokeSettings:
    """All four families, for the small service."""
    secret = tmp_path / "jwt"
    secret.write_text(JWT_SECRET)
    secret.chmod(0o600)
    read = SmokeSettings.model_validate(SETTINGS)
    token = read.authentication.token.model_copy(update={"key_file": secret})
    section = read.authentication.model_copy(update={"token": token})
    return read.model_copy(update={"authentication": section})


def probes(settings: SmokeSettings) -> dict[str, Probe]:
    """Return the probes of the four families by their names."""
    return {each.name: each for family in FAMILIES for each in family.probes(settings)}


def target(url: str, seconds: float = _SECONDS) -> Target:
    """Return the small service with its keys."""
    keys = {name: {"X-API-Key": key} for name, key in KEYS.items()}
    return Target(url=url, timeout_seconds=seconds, keys=keys)


def asked(probe: Probe, service: Target) -> Check | WrongAnswer:
    """Return what a probe says; no answer in time on a busy machine is asked again."""
    for _ in range(20):
        try:
            with Session(service) as session:
                return probe.ask(session)
        except WrongAnswer as wrong:
            return wrong
        except Inconclusive as error:
            last = error
    raise last


def is_right(said: Check | WrongAnswer) -> bool:
    """Say whether a probe passed."""
    return isinstance(said, Check) and said.passed is True


def failing(settings: SmokeSettings, service: Target, families: str = "") -> set[str]:
    """Return the names of the probes that do not pass, of families that are named."""
    # Something must be in the trail.
    asked(probes(settings)["audit.own-action"], service)
    return {
        name
        for name, each in probes(settings).items()
        if not families or each.family in families
        if not is_right(asked(each, service))
    }


def test_all_pass_on_a_service_that_is_right(settings: SmokeSettings) -> None:
    """Also a second time, when what they need is there, and none make more."""
    service = Service()
    with serving(service.app()) as url:
        assert not failing(settings, target(url))
        made = len(service.tasks)
        assert made == DEFAULT_SIZE + 1
        assert not failing(settings, target(url))
        assert len(service.tasks) == made


@pytest.mark.parametrize("way", RIGHT)
def test_all_pass_on_a_service_that_is_right_in_another_way(
    way: str, settings: SmokeSettings
) -> None:
    """What the probes ask for has more than one right answer."""
    with serving(Service(defects=frozenset([way])).app()) as url:
        assert not failing(settings, target(url))


@pytest.mark.parametrize("defects", sorted(DEFECTS))
def test_a_defect_fails_its_own_probes(defects: str, settings: SmokeSettings) -> None:
    """And leaves the other probes of their families as they are."""
    patterns = DEFECTS[defects].split()
    with serving(Service(defects=frozenset(defects.split())).app()) as url:
        failed = failing(settings, target(url), DEFECTS[defects])

    assert failed == {
        name
        for name in probes(settings)
        if any(fnmatch(name, each) for each in patterns)
    }


@pytest.mark.parametrize("defect", sorted(SILENT))
def test_silence_fails_its_probe(defect: str, settings: SmokeSettings) -> None:
    """What is waited for does not come."""
    with serving(Service(defects=frozenset([defect])).app()) as url:
        said = asked(probes(settings)[SILENT[defect]], target(url, _FEW_SECONDS))

    assert isinstance(said, WrongAnswer) or said.passed is False


def test_nobody_gets_in(settings: SmokeSettings) -> None:
    """A service that refuses everybody does not pass for a safe one."""
    with serving(Service(defects=frozenset(["nobody-gets-in"])).app()) as url:
        failed = failing(settings, target(url))

    assert failed >= {
        "authentication.right-key",
        "authentication.stream",
        "authentication.token",
        "authentication.websocket",
        "authorisation.other-user",
        "authorisation.roles",
    }


@pytest.mark.parametrize("defect", ["", "diagnostics-403", "diagnostics-enabled"])
def test_disabled_diagnostics_are_hidden(defect: str, settings: SmokeSettings) -> None:
    """They are 404 for everybody; 403 says that they are there."""
    section = settings.authorisation
    disabled = section.diagnostics.model_copy(update={"enabled": False})
    section = section.model_copy(update={"diagnostics": disabled})
    settings = settings.model_copy(update={"authorisation": section})
    service = Service(defects=frozenset([defect]), diagnostics=False)
    with serving(service.app()) as url:
        said = asked(probes(settings)["authorisation.diagnostics"], target(url))

    assert is_right(said) == (not defect)


def test_a_list_that_is_too_short_and_not_to_be_filled_is_inconclusive(
    settings: SmokeSettings,
) -> None:
    """Nothing is shown of its pages, and nothing is made in it."""
    tasks = settings.lists["tasks"].model_copy(update={"fill": {}})
    settings = settings.model_copy(update={"lists": {"tasks": tasks}})
    service = Service()
    (probe, *_) = pagination.probes(settings)
    with (
        serving(service.app()) as url,
        Session(target(url)) as session,
        pytest.raises(Inconclusive, match="fill"),
    ):
        probe.ask(session)

    assert not service.tasks


def test_the_action_is_recognised_by_its_user_too(settings: SmokeSettings) -> None:
    """Also where entries have no id of the request."""
    entry = {"actor": "writer", "action": "task.changed"}
    section = settings.audit.model_copy(update={"entry": entry, "request_id": ""})
    settings = settings.model_copy(update={"audit": section})
    probe = probes(settings)["audit.own-action"]
    with serving(Service().app()) as url:
        assert is_right(asked(probe, target(url)))
    with serving(Service(defects=frozenset(["no-actor"])).app()) as url:
        assert not is_right(asked(probe, target(url, _FEW_SECONDS)))


def test_nothing_is_asked_that_is_not_configured() -> None:
    """Each family yields no probe without a section."""
    assert not probes(SmokeSettings())


def test_no_key_is_printed(settings: SmokeSettings) -> None:
    """Whatever is wrong, and however it is said."""
    said = []
    for defects in ("any-key", "open-route signature-unverified", "nobody-gets-in"):
        with serving(Service(defects=frozenset(defects.split())).app()) as url:
            for each in probes(settings).values():
                answer = asked(each, target(url))
                said += [answer.expected, answer.observed, answer.detail]
    text = " ".join(said)

    assert text
    assert not [key for key in (*KEYS.values(), JWT_SECRET) if key in text]
    assert "eyJ" not in text


def test_a_wrong_key_has_the_form_of_the_right_one() -> None:
    """Its beginning, its length and its kinds of characters are the same."""
    right = KEYS["writer"]

    (wrong,) = authentication.altered({"X-API-Key": right}).values()

    assert wrong != right
    assert wrong[:12] == right[:12]
    assert re.sub("[a-z]", "a", re.sub("[0-9]", "0", wrong)) == re.sub(
        "[a-z]", "a", re.sub("[0-9]", "0", right)
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"resources": {}}, "smoke.resources.task"),
        ({"lists": {}}, "smoke.lists.tasks"),
    ],
)
def test_a_name_that_is_missing_is_an_error_of_the_configuration(
    change: dict[str, Any], match: str, settings: SmokeSettings
) -> None:
    """It is named with its section."""
    settings = settings.model_copy(
        update={**change, "pagination": SmokeSettings().pagination}
    )
    right = {each.name: each for each in authentication.probes(settings)}
    with (
        serving(Service().app()) as url,
        Session(target(url)) as session,
        pytest.raises(ConfigurationError, match=re.escape(match)),
    ):
        right["authentication.right-key"].ask(session)


@pytest.mark.parametrize("algorithm", ["RS256", "HS1"])
def test_a_key_that_does_not_sign_is_an_error_of_the_configuration(
    algorithm: str, settings: SmokeSettings
) -> None:
    """A secret is no private key, and an algorithm may be misspelt; neither is shown."""
    token = settings.authentication.token.model_copy(update={"algorithm": algorithm})
    section = settings.authentication.model_copy(update={"token": token})
    settings = settings.model_copy(update={"authentication": section})
    with (
        Session(Target(url="http://127.0.0.1:1", timeout_seconds=1)) as session,
        pytest.raises(ConfigurationError) as error,
    ):
        probes(settings)["authentication.token"].ask(session)

    assert JWT_SECRET not in str(error.value)


@pytest.mark.parametrize("missing", ["listed_in", "body"])
def test_a_resource_must_be_one_that_can_be_looked_up(missing: str) -> None:
    """By its id, or in a list by its fields."""
    resource = SETTINGS["resources"]["task"]
    without = {name: each for name, each in resource.items() if name != missing}

    with pytest.raises(ValidationError, match="listed_in and body"):
        SmokeSettings.model_validate({"resources": {"task": without}})
    assert SmokeSettings.model_validate({"resources": {"task": {**without, "id": "7"}}})
