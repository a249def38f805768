"""Ports for servers that bind them later: nobody else is given them meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

# Below what the kernel gives to connections and to those who ask for any port, and for
# each of pytest's workers its own.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_COUNT = 3_000
_FIRST = 20_000 + _WORKER * _COUNT
_BEGIN = random.randrange(_COUNT)  # several runs of the tests may go on at once
_numbers = itertools.cycle(_FIRST + (_BEGIN + each) % _COUNT for each in range(_COUNT))


def free_port(*, companion: int = 0) -> int:
    """Return a port of the loopback that nothing listens on.

    With a companion the port that lies so far above it is free as well.
    """
    while True:
        above = next(_numbers)
        port = above - companion
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for each in {port, above}:
                stack.enter_context(socket.create_server(("127.0.0.1", each)))
            return port
