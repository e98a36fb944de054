"""A TCP proxy that misbehaves between a client and a server, a bounded number of times and by a seed.

Faults, one a request: `reset` in the middle of a request or reply, `error` (a 500 or 503 in place of the server's
answer), `truncate` (the reply ends early as if it were over), `trickle` (the reply comes in small pieces), `drop` (the
connection closes without an answer). A request without a fault is passed on as it is.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

FAULTS = ("reset", "error", "truncate", "trickle", "drop")


class FaultProxy:
    """Listens on `port`; `left` more requests meet a fault, the others do not.

    Attributes:
        kinds: to draw from. left: how many are still to come. rate: share of the requests that meet one.
        seen: how often each kind came.
    """

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self._target = target
        self._random = random.Random(seed)
        self.kinds: Sequence[str] = FAULTS
        self.left, self.rate = 0, 0.5
        self.seen: Counter[str] = Counter()
        self._spoil: dict[socket.socket, str] = {}  # the next reply of this server connection
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def plan(self, left: int, kinds: Sequence[str] = FAULTS, rate: float = 0.5) -> None:
        self.left, self.kinds, self.rate = left, kinds, rate
        self.seen.clear()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _draw(self) -> str | None:
        if self.left <= 0 or self._random.random() >= self.rate:
            return None
        self.left -= 1
        kind = self._random.choice(self.kinds)
        self.seen[kind] += 1
        return kind

    def _serve(self, client: socket.socket) -> None:
        """One connection; a fault is drawn for every request on it."""
        with contextlib.suppress(OSError), client:
            server = socket.create_connection(("127.0.0.1", self._target))
            with server:
                threading.Thread(target=self._answers, args=(server, client), daemon=True).start()
                while data := client.recv(1 << 16):
                    kind = self._draw() if data.startswith((b"GET", b"PUT", b"POST", b"HEAD", b"DELETE")) else None
                    if kind == "drop":
                        return
                    if kind == "error":
                        status = self._random.choice([b"500 Internal Server Error", b"503 Slow Down"])
                        client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                        return
                    if kind == "reset":
                        server.sendall(data[: len(data) // 2])
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    if kind in ("truncate", "trickle"):
                        self._spoil[server] = kind
                    server.sendall(data)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                kind = self._spoil.pop(server, None)
                if kind == "truncate":
                    if self._random.random() < 0.5:  # a later piece of a long reply
                        client.sendall(data)
                        data = server.recv(1 << 16) or b"?"
                    client.sendall(data[: self._random.randrange(len(data) // 2, len(data))])
                    break
                if kind == "trickle":
                    for start in range(0, len(data), 1 << 12):
                        client.sendall(data[start : start + (1 << 12)])
                        time.sleep(0.005)
                    continue
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def between(target: int, *, seed: int = 0) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target, seed=seed)
    try:
        yield proxy
    finally:
        proxy.close()
