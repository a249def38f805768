"""All defects, by their names."""

from __future__ import annotations

from tests.defects import (
    audit,
    authentication,
    authorisation,
    cors,
    headers,
    health,
    input,
    latency,
    limits,
    observability,
    pagination,
    rate_limit,
    strained,
    tls,
    webhooks,
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
        rate_limit,
        webhooks,
        limits,
        input,
        observability,
        pagination,
        latency,
        audit,
    )
    for defect in module.DEFECTS
}
# Those that have tests of their own, in which only the probe in question is asked.
OTHERS: dict[str, Defect] = {
    defect.name: defect for module in (tls, strained) for defect in module.DEFECTS
}
