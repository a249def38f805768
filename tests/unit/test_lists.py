"""Lists: the address of the next page, however the service gives it."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from opskit.config.access import ListSettings
from opskit.probes.lists import pages
from opskit.probes.session import Session, Target
from tests.asgi import serving


@pytest.mark.parametrize("base", ["", "/shop"])
@pytest.mark.parametrize("kind", ["address", "path", "path below", "cursor"])
def test_the_next_page_is_found_whatever_names_it(base: str, kind: str) -> None:
    """The address of the service may have a path, which a next address has too."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = f"{base}/api/tasks"
        is_last = bool({"cursor", "after"} & request.query_params.keys())
        following = {
            "address": str(request.url.replace(query="cursor=2")),
            "path": f"{path}?cursor=2",
            "path below": "/api/tasks?cursor=2",
            "cursor": "2",
        }[kind]
        document = {
            "items": [{"id": 2 if is_last else 1}],
            "next": None if is_last else following,
        }
        status = 200 if request.url.path == path else 404
        await JSONResponse(document, status)(scope, receive, send)

    settings = ListSettings(path="/api/tasks", key="", items="items", next="next")
    with serving(serve) as url:
        target = Target(url=f"{url}{base}", timeout_seconds=60, keys={})
        with Session(target) as session:
            found = [page.ids for page in pages(session, settings, limit=1)]

    assert found == [["1"], ["2"]]
