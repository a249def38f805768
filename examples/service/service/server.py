"""Server: Uvicorn, set up to end well and to bear bad clients."""

from __future__ import annotations

import asyncio
from types import FrameType

import uvicorn

from service import app, logs
from service.connections import IDLE_SECONDS, Connection
from service.settings import Settings

_HEADER_BYTES_MAX = 16 * 1024
_WEBSOCKET_BYTES_MAX = 64 * 1024


class Server(uvicorn.Server):
    """Tells the application of the signal, not only of the end."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End, and let streams end."""
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._stopping.set)


def serve(settings: Settings, port: int) -> None:
    """Serve until a signal comes."""
    logs.configure(settings.log_level)
    application = app.create(settings)
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=port,
        http=Connection,
        ws="websockets-sansio",
        ws_max_size=_WEBSOCKET_BYTES_MAX,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=settings.stop_seconds,
        h11_max_incomplete_event_size=_HEADER_BYTES_MAX,
    )
    Server(config, application.state.service.stopping).run()
