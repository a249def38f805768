"""Defects of what belongs to whom, and of who may do what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.defects.defect import planted_in

_tasks = planted_in("service/tasks.py")
_accounts = planted_in("service/accounts.py")
_health = planted_in("service/health.py")
_events = planted_in("service/events.py")

_LIST = '"SELECT * FROM tasks WHERE owner_id = %(owner)s "'
_READ = '_READ = "SELECT * FROM tasks WHERE id = %s AND owner_id = %s"'
_LOCK = '_LOCK = "SELECT * FROM tasks WHERE id = %s AND owner_id = %s FOR UPDATE"'
_ANYBODY = '"SELECT * FROM tasks WHERE %(owner)s IS NOT NULL "'

# With these the service is right, too.
_DISABLED: dict[str, Any] = {
    "settings": {"diagnostics": "false"},
    "configuration": {
        "enabled = true, permitted": "permitted",
        # They need what is disabled.
        'busy_path = "/diagnostics/wait?seconds=3"': "",
        'timeout_path = "/diagnostics/wait?seconds=30"': "",
    },
}

DEFECTS = (
    _tasks(
        "task-of-another",
        _READ,
        _READ.replace("owner_id = %s", "%s IS NOT NULL"),
        probe="authorisation.other-user",
        what="The query of one task leaves out its owner.",
    ),
    _tasks(
        "change-of-anothers-task",
        _LOCK,
        _LOCK.replace("owner_id = %s", "%s::bigint IS NOT NULL").replace(
            "FOR UPDATE", ""
        ),
        probe="authorisation.other-user-changes",
        what="Who changes a task is answered with it before its owner is compared.",
    ),
    _tasks(
        "tasks-of-all",
        _LIST,
        _ANYBODY,
        probe="authorisation.lists",
        what="The list of tasks is not filtered by owner.",
    ),
    _accounts(
        "every-role-writes",
        "return order.index(self) >= order.index(other)",
        "return order.index(self) >= order.index(other) or other is Role.WRITER",
        probe="authorisation.reader-writes",
        what="Readers may write.",
    ),
    _tasks(
        "reader-creates",
        "new: NewTask, state: Current, account: Writer",
        "new: NewTask, state: Current, account: Reader",
        probe="authorisation.reader-writes",
        what="The route that creates tasks asks for the wrong role.",
    ),
    _accounts(
        "roles-not-compared",
        "return order.index(self) >= order.index(other)",
        "return self in order and other in order",
        probe="authorisation.reader-writes",
        what="That an account has a role is enough.",
    ),
    _accounts(
        "readers-cannot-read",
        "Depends(require(Role.READER))",
        "Depends(require(Role.WRITER))",
        probe="authorisation.roles",
        what="Who may only read may not even read.",
    ),
    _accounts(
        "only-administrators-write",
        "Depends(require(Role.WRITER))",
        "Depends(require(Role.ADMIN))",
        probe="authorisation.roles",
        what="The route that writes asks for a higher role than documented.",
    ),
    _events(
        "events-for-all",
        "not self.is_subscribed or event.account_id != self.account_id",
        "not self.is_subscribed",
        probe="authorisation.events",
        what="Every listener is sent the events of all accounts.",
    ),
    replace(
        _health(
            "diagnostics-always",
            "    if not state.settings.diagnostics:\n",
            "    if not state.settings.version:\n",
            probe="authorisation.diagnostics",
            what="Diagnostics are served although they are disabled.",
        ),
        **_DISABLED,
    ),
    _health(
        "diagnostics-for-all",
        "from service.accounts import Admin\n",
        "from service.accounts import Reader as Admin\n",
        probe="authorisation.diagnostics",
        what="Every account reads diagnostics.",
    ),
    _health(
        "diagnostics-without-key",
        "async def diagnostics(_account: Admin, state: Current)",
        "async def diagnostics(state: Current)",
        probe="authorisation.diagnostics",
        what="Diagnostics need no key.",
    ),
    replace(
        _health(
            "diagnostics-403-when-disabled",
            'raise HTTPException(404, "Not Found")',
            'raise HTTPException(403, "diagnostics are disabled")',
            probe="authorisation.diagnostics",
            what="The answer tells that there are diagnostics, although disabled.",
        ),
        **_DISABLED,
    ),
)
