"""The settings of restores."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from opskit.config.drill import DrillSettings, known_kinds
from opskit.config.section import Section

_AS_IN_DRILL = "; as in `[drill]` if not set"


class RestoreSettings(Section):
    """How a set is restored, where that differs from its drills."""

    settings: dict[str, str] | None = Field(
        default=None,
        description="settings of the sessions that load; one that only a whole server "
        f"can have must be set on the server{_AS_IN_DRILL}",
    )
    allow: Annotated[list[str] | None, AfterValidator(known_kinds)] = Field(
        default=None,
        description="what every restore may do without, by the names that "
        f"`--accept-failures` takes{_AS_IN_DRILL}",
    )
    sql_before: list[str] | None = Field(
        default=None,
        description=f"statements run in the empty copy{_AS_IN_DRILL}",
    )
    sql_after: list[str] | None = Field(
        default=None,
        description=f"statements run in the loaded copy{_AS_IN_DRILL}",
    )

    def with_defaults(self, drill: DrillSettings) -> RestoreSettings:
        """Return the same, with a drill's values for what is not set."""
        fields = type(self).model_fields
        own = {name: getattr(self, name) for name in fields}
        return RestoreSettings(
            **{
                name: getattr(drill, name) if value is None else value
                for name, value in own.items()
            }
        )
