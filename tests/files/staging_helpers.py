"""A web server and a stand-in for the engine."""

from __future__ import annotations

import functools
import http.server
import pickle
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any


class WebServer:
    """Answers each path by a list of behaviours, one for each request; the last one goes on for ever."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, Any] = {}
        self.go_on = threading.Event()
        self._routes: dict[str, list[Callable[[Any], None]]] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path
                outer.headers[path] = self.headers
                todo = outer._routes.get(path, [status(404)])
                number = outer.requests[path]
                outer.requests[path] += 1
                todo[min(number, len(todo) - 1)](self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.server.block_on_close = True
        self.scheme = "http"
        self._thread = threading.Thread(target=functools.partial(self.server.serve_forever, 0.01))
        self._thread.start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    def route(self, path: str, *behaviours: Callable[[Any], None]) -> str:
        self._routes[path] = list(behaviours)
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def use_tls(self, certificate: Any) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign] - refused handshakes are expected
        self.scheme = "https"

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def body(data: bytes) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def status(code: int, **headers: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def cut(announced_bytes: int, data: bytes) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(announced_bytes))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def reset(handler: Any) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


class FakeEngine:
    """What providers need of an engine: everything goes through pickle, as on its way to a worker."""

    def __init__(self, working_dir: Path) -> None:
        self.working_dir = str(working_dir)
        self.labels: list[str] = []
        self._pool = ThreadPoolExecutor(4)

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, label: str, after: Future[Any] | None = None
    ) -> Future[Any]:
        self.labels.append(label)
        data = pickle.dumps((fn, args))

        def work() -> Any:
            if after is not None:
                after.result()
            there, arguments = pickle.loads(data)
            return there(*arguments)

        return self._pool.submit(work)

    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.submit(fn, *args, label="user's task").result(20)

    def close(self) -> None:
        self._pool.shutdown()
