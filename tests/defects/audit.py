"""Defects of the audit trail."""

from __future__ import annotations

from tests.defects.defect import planted_in

_audit = planted_in("service/audit.py")


DEFECTS = (
    _audit(
        "audit-for-readers",
        "from service.accounts import Account, Admin\n",
        "from service.accounts import Account, Reader as Admin\n",
        probe="audit.access",
        what="Every account reads what all others did.",
    ),
    _audit(
        "audit-for-writers",
        "from service.accounts import Account, Admin\n",
        "from service.accounts import Account, Writer as Admin\n",
        probe="audit.access",
        what="Writers read what all others did.",
    ),
    _audit(
        "audit-filter-of-actor-ignored",
        "OR actor = %(actor)s)",
        "OR actor <> '')",
        probe="audit.filters",
        what="The filter by actor does nothing.",
    ),
    _audit(
        "audit-filter-of-action-ignored",
        "OR action = %(action)s)",
        "OR action <> '')",
        probe="audit.filters",
        what="The filter by action does nothing.",
    ),
    _audit(
        "audit-filter-of-time-ignored",
        "OR time >= %(since)s)",
        "OR time IS NOT NULL)",
        probe="audit.since",
        what="The filter by time does nothing.",
    ),
    _audit(
        "nothing-is-recorded",
        "[actor.name, action, subject,",
        '[actor.name, "noted", subject,',
        probe="audit.own-action",
        what="What was done is recorded under another name.",
    ),
    _audit(
        "audit-without-actor",
        "[actor.name, action, subject,",
        '["service", action, subject,',
        probe="audit.own-action",
        what="Everything is recorded as done by the service itself.",
    ),
)
