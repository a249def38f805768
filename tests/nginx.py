"""Nginx, run with a configuration of a test."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_port
from tests.unit import stock

_SECONDS_MAX = 60
# A balancer that chooses an instance for each request, and passes everything on.
_BALANCER = """
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 768; }}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path body;
    proxy_temp_path proxied;
    client_max_body_size 0;
    large_client_header_buffers 4 64k;
    split_clients "$request_id" $instance {{ {shares} }}
    map $http_upgrade $kept {{ default upgrade; "" close; }}
    server {{
        include listen.conf;
        location / {{
            proxy_pass http://$instance;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $kept;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, configuration: str) -> Iterator[str]:
    """Run it in a folder for the block, and yield its address."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "listen.conf").write_text(f"listen {address};")
    (folder / "nginx.conf").write_text(configuration)
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    command = [stock.program("nginx"), "-p", str(folder), "-c", "nginx.conf"]
    process = subprocess.Popen([*command, "-g", f"daemon off; {user}"])
    try:
        _await(address, process)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(_SECONDS_MAX)


def balancing_requests(
    folder: Path, *instances: str
) -> contextlib.AbstractContextManager[str]:
    """Have it send each request to an instance at random, WebSockets too."""
    places = [each.removeprefix("http://") for each in instances]
    share = f"{100 / len(places):.2f}%"
    shares = [f"{share} {place};" for place in places[:-1]] + [f"* {places[-1]};"]
    return nginx(folder, _BALANCER.format(shares=" ".join(shares)))


def _await(address: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = address.partition(":")
    end = time.monotonic() + _SECONDS_MAX
    while True:
        assert process.poll() is None, "nginx ended"
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection((host, int(port)), _SECONDS_MAX).close()
        assert time.monotonic() < end, "nginx does not listen"
        time.sleep(0.05)
