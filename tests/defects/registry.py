"""All defects, by their names."""

from __future__ import annotations

from tests.defects import (
    audit,
    authentication,
    authorisation,
    cors,
    headers,
    health,
    latency,
    observability,
    pagination,
)
from tests.defects.defect import Defect

DEFECTS: dict[str, Defect] = {
    defect.name: defect
    for module in (
        health,
        authentication,
        authorisation,
        headers,
        cors,
        observability,
        pagination,
        latency,
        audit,
    )
    for defect in module.DEFECTS
}
