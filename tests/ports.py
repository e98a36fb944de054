"""Ports for tests' servers: below the range from which the kernel gives ports to connections."""

from __future__ import annotations

import itertools
import os
import socket

_BLOCK = 2_000
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
_next = itertools.count(os.getpid() % _BLOCK)


def free_port() -> int:
    """A port where nobody listens; no second call in this process or in another worker gives the same one."""
    for _ in range(_BLOCK):
        port = 12_000 + _WORKER * _BLOCK + next(_next) % _BLOCK
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("no free port in this worker's block")
