"""A small host of files on this machine: ranges, redirections, cut connections, logins, Civitai."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.support.serving import served


@dataclass
class FileHost:
    """What lies there, how it behaves, and what was asked of it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)  # JSON, by path
    moved: dict[str, str] = field(default_factory=dict)  # path -> Location
    status: dict[str, int] = field(default_factory=dict)  # what a path answers instead
    types: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # with each file
    key: str = ""  # without it, files are refused
    cuts: list[int] = field(default_factory=list)  # bytes after which connections break off
    etag: str = ""  # instead of the content's own
    ignores_ranges: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # path, Range, Authorization

    def requests(self, path: str) -> list[str]:
        """The ranges that were asked of a path."""
        return [span for asked, span, _ in self.asked if asked == path]


@contextmanager
def file_host() -> Iterator[FileHost]:
    """The host, for as long as the block lasts."""
    fake = FileHost()
    with served(_Handler, fake=fake) as fake.url:
        yield fake


class _Handler(BaseHTTPRequestHandler):
    fake: FileHost

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        fake, path = self.fake, urlsplit(self.path).path
        authorization = self.headers.get("Authorization", "")
        fake.asked.append((path, self.headers.get("Range", ""), authorization))
        is_let_in = not fake.key or fake.key in (self.path + authorization)
        if path in fake.status:
            self._say(fake.status[path], b"so it is")
        elif path in fake.answers:
            self._say(200, json.dumps(fake.answers[path]).encode(), "application/json")
        elif path in fake.moved:
            self.send_response(302)
            self.send_header("Location", fake.moved[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif not is_let_in:
            self._say(401, b"log in")
        elif path in fake.files:
            self._file(path)
        else:
            self._say(404, b"nothing")

    def _file(self, path: str) -> None:
        fake, content = self.fake, self.fake.files[path]
        etag = fake.etag or f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = self.headers.get("If-Range", etag) == etag
        start = int(span[1]) if span and is_same and not fake.ignores_ranges else 0
        self.send_response(206 if start else 200)
        if start:
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        sent = {"ETag": etag, "Content-Length": str(len(content) - start), **fake.headers}
        sent["Content-Type"] = fake.types.get(path, "application/octet-stream")
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        cut = fake.cuts.pop(0) if fake.cuts else None
        with suppress(ConnectionError):  # who has seen enough hangs up
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])

    def _say(self, status: int, content: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
