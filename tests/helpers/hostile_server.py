"""A web server on 127.0.0.1 that keeps to HTTP, or breaks it in the ways that real ones and real lines do."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hostile:
    """What the server holds, what it will do wrong, and what it was asked.

    Attributes
    ----------
    files : dict
        Path → bytes. Paths that are not here are answered 404.
    tricks : dict
        Path → what the next GETs of it meet, one each: ``cut`` (half of the rest comes), ``stall`` (likewise, and
        the line stays open), ``long``/``short`` (Content-Length too large, too small), ``500``, ``anew`` (Range is
        ignored), ``elsewhere`` (206 with another part than asked for), ``gone`` (the connection is closed unanswered),
        ``gzip`` (says that the body is compressed). After these it behaves.
    head_lies : dict
        Path → Content-Length that HEAD gives.
    validators : bool
        Whether ETag and Last-Modified are sent.
    asked : list
        (method, path, Range header, status) of each request.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.tricks: dict[str, list[str]] = defaultdict(list)
        self.head_lies: dict[str, int] = {}
        self.validators = True
        self.asked: list[tuple[str, str, str, int]] = []
        self.together = 0
        self.most_together = 0
        self.gather: threading.Barrier | None = None
        self.release = threading.Event()
        self.mutex = threading.Lock()
        self.url = ""

    def gets(self, part: str = "") -> list[tuple[str, str, str, int]]:
        """The GET requests for paths that hold ``part``."""
        return [a for a in self.asked if a[0] == "GET" and part in a[1]]


def _handler(server: Hostile) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def note(self, status: int) -> None:
            server.asked.append((self.command, self.path, self.headers.get("Range", ""), status))

        def head(self, status: int, body: bytes, length: int, **more: str) -> None:
            self.note(status)
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            if server.validators and status < 300:
                self.send_header("ETag", _tag(server.files[self.path]))
            for name, value in more.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def do_HEAD(self) -> None:
            body = server.files.get(self.path)
            if body is None:
                return self.head(404, b"", 0)
            return self.head(200, body, server.head_lies.get(self.path, len(body)))

        def do_GET(self) -> None:
            with server.mutex:
                server.together += 1
                server.most_together = max(server.most_together, server.together)
                trick = server.tricks[self.path].pop(0) if server.tricks[self.path] else ""
            try:
                if server.gather is not None and self.path.endswith(".zip"):
                    server.gather.wait(10)
                self.answer(trick)
            finally:
                with server.mutex:
                    server.together -= 1

        def answer(self, trick: str) -> None:
            body = server.files.get(self.path)
            if trick == "gone":
                self.close_connection = True
                return self.note(0)
            if body is None or trick == "404":
                return self.head(404, b"", 0)
            if trick == "500":
                return self.head(500, b"", 0)
            start, status, more = 0, 200, {}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            fresh = self.headers.get("If-Range", _tag(body)) == _tag(body)
            if asked and fresh and trick != "anew":
                start, status = int(asked[1]), 206
                if start >= len(body):
                    return self.head(416, b"", 0, Content_Range=f"bytes */{len(body)}")
                if trick == "elsewhere":
                    start //= 2
                more = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            if trick == "gzip":
                more["Content_Encoding"] = "gzip"
            rest = body[start:]
            length = len(rest) + {"long": 100, "short": -100}.get(trick, 0)
            self.head(status, body, length, **more)
            half = trick in ("cut", "stall")
            self.wfile.write(rest[: len(rest) // 2] if half else rest[:length])
            self.wfile.flush()
            if trick == "stall":
                server.release.wait(10)
            if half or trick == "long":
                self.close_connection = True
            return None

    return Handler


def _tag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hostile]:
    """Serve ``files`` on a free port of 127.0.0.1 until the block ends."""
    hostile = Hostile(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hostile))
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hostile.url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield hostile
    finally:
        hostile.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
