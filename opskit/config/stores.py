"""The settings of stores: where backup sets live."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from opskit.config.section import Section


class StoreSettings(Section):
    """One place where backup sets live."""

    url: str = Field(description="`file:///absolute/folder`")

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if re.fullmatch(r"file:///[^?#]*", url) is None:
            raise ValueError("must be file:///absolute/folder")
        return url
