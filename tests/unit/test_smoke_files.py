"""A report that cannot be written is refused before the service is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from opskit.operations.run import Run
from opskit.operations.smoke import SmokeRequest, smoke
from tests.asgi import serving
from tests.unit.conftest import LoadConfig


@pytest.mark.parametrize("flag", ["junit", "markdown"])
def test_a_missing_folder_is_refused_at_once(
    load_config: LoadConfig, tmp_path: Path, flag: str
) -> None:
    """The exit code is 2, and no request arrives."""
    asked: list[str] = []

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(Request(scope).url.path)
        await JSONResponse({"version": "1"})(scope, receive, send)

    with serving(service) as url:
        run = Run(
            load_config(
                f'state_dir = "{tmp_path}"\n[stores.local]\nurl = "file://{tmp_path}"\n'
                f'[smoke]\nurl = "{url}"\nprofile = "minimal"\ndeadline = "1s"\n'
            )
        )
        file = tmp_path / "missing" / "report"
        request = (
            SmokeRequest(junit=file) if flag == "junit" else SmokeRequest(markdown=file)
        )
        outcome = smoke(run, request)
    assert asked == []
    assert outcome.exit_code == 2
    assert f"--{flag} {file}" in outcome.errors[0].message
