"""Resources: what belongs to one user, looked up or made once in a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from opskit.config.access import RequestSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import ConfigurationError
from opskit.probes.lists import name_of, pages
from opskit.probes.probe import WrongAnswer
from opskit.probes.session import Answer, Session

_NAME = re.compile(r"\{(\w+)\}")
T = TypeVar("T")


class Resources:
    """The resources in the settings, in the service."""

    def __init__(self, settings: SmokeSettings) -> None:
        self._settings = settings

    def id(self, session: Session, name: str) -> str:
        """Return the id of a resource, which is made if its list has none like it."""
        resource = named(self._settings.resources, name, "resources")
        if resource.id:
            return resource.id
        return session.target.once.get(name, lambda: self._look_up(session, name))

    def path(self, session: Session, path: str) -> str:
        """Return a path with ids in the place of the names of resources."""
        return _NAME.sub(lambda match: quote(self.id(session, match[1]), safe=""), path)

    def send(
        self,
        session: Session,
        request: RequestSettings,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request with its own credential, or with another; empty for none."""
        return session.request(
            request.method,
            self.path(session, request.path),
            key=request.key if key is None else key,
            headers=headers,
            document=request.document,
        )

    def _look_up(self, session: Session, name: str) -> str:
        resource = self._settings.resources[name]
        list_ = named(self._settings.lists, resource.listed_in, "lists")
        owner = resource.owner
        for page in pages(session, list_, key=owner, limit=list_.size_max):
            for item in page.items:
                if _is_like(item, resource.body):
                    return name_of(item, list_)
        answer = session.request("POST", list_.path, key=owner, document=resource.body)
        if not 200 <= answer.status <= 299:
            raise WrongAnswer(
                expected=f"POST {list_.path} makes the resource {name}",
                observed=str(answer.status),
            )
        return name_of(answer.json(), list_)


def named(settings: Mapping[str, T], name: str, section: str) -> T:
    """Return a part of the settings by its name.

    Raises:
        ConfigurationError: it is missing.
    """
    if name not in settings:
        raise ConfigurationError(
            f"a probe needs [smoke.{section}.{name}], which is missing",
            hint=f"Add [smoke.{section}.{name}], or name another of {section}.",
        )
    return settings[name]


def _is_like(item: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Return whether an item has the fields of a body, as far as lists show them."""
    shown = item.keys() & body.keys()
    return bool(shown) and all(item[each] == body[each] for each in shown)
