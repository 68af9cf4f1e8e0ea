"""A web server on this machine, for stand-ins of the Hub and of other hosts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], **attributes: Any) -> Iterator[str]:
    """Its address, for as long as the block lasts; attributes: what its handlers can read."""
    own = type("Handler", (handler,), attributes)
    server = ThreadingHTTPServer(("127.0.0.1", 0), own)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
