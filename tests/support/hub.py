"""A small Hugging Face Hub on this machine: the calls that uploads and downloads make."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from huggingface_hub import constants

from kit.hub import fetch_record
from tests.support.serving import served

LARGE = (".safetensors", ".pt", ".ckpt")  # go through LFS, the rest through the commit itself


@dataclass
class FakeHub:
    """What lies there, and what was asked of it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refuse: list[int] = field(default_factory=list)  # answers to the next commits, instead of 200
    losing: bool = False  # what is sent arrives with a byte missing
    blobs: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def hub() -> Iterator[FakeHub]:
    """The hub, for as long as the block lasts."""
    fake = FakeHub()
    with served(_Handler, hub=fake) as fake.url:
        yield fake


def speak_to(fake: FakeHub, patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let the client, which has read its environment long ago, take this hub for the real one."""
    template = f"{fake.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in {
        "ENDPOINT": fake.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(cache),
    }.items():
        patch.setattr(constants, name, value)
    fetch_record.cache_clear()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        self._act()

    do_PUT = do_GET = do_HEAD = do_POST

    def _act(self) -> None:
        path = unquote(self.path.partition("?")[0])
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.calls.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif path.endswith("/info/lfs/objects/batch"):
            self._lfs_batch(json.loads(body))
        elif self.command == "PUT":
            self.hub.blobs[parts[-1]] = body[:-1] if self.hub.losing else body
            self._say(200)
        elif parts[0] == "api" and "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = {f["path"]: "lfs" if f["path"].endswith(LARGE) else "regular" for f in files}
            told = [
                {"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()
            ]
            self._say(200, {"files": told})
        elif parts[0] == "api" and "/commit/" in path:
            self._commit([json.loads(line) for line in body.splitlines()])
        elif parts[0] == "api" and "/paths-info/" in path:
            asked = dict(part.split("=", 1) for part in body.decode().split("&") if "=" in part)
            self._paths_info(body, asked)
        elif "resolve" in parts:
            self._file("/".join(parts[parts.index("resolve") + 2 :]))
        else:
            self._say(404, {"error": f"the fake knows no {path}"})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'anna'}/{asked['name']}"
        status = 409 if name in self.hub.repos else 200
        self.hub.repos.setdefault(name, asked)
        self._say(status, {"url": f"{self.hub.url}/{name}"})

    def _validate(self, card: str) -> None:
        """As the real one does, a card's first lines must be YAML."""
        front = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else {}
        wrong = [] if isinstance(front, dict) else [{"message": "no mapping"}]
        self._say(400 if wrong else 200, {"errors": wrong, "warnings": []})

    def _lfs_batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**thing, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{thing['oid']}"}}}
            for thing in asked["objects"]
        ]
        self._say(200, {"transfer": "basic", "objects": objects})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        if self.hub.refuse:
            self._say(self.hub.refuse.pop(0), {"error": "so it is"})
            return
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.blobs[value["oid"]]
        self._say(
            200,
            {"commitUrl": f"{self.hub.url}/anna/cats/commit/{'c' * 40}", "commitOid": "c" * 40},
        )

    def _paths_info(self, body: bytes, asked: dict[str, str]) -> None:
        text = unquote(body.decode().replace("+", " "))
        try:
            wanted = json.loads(text)["paths"]
        except ValueError:
            wanted = [
                part.partition("=")[2] for part in text.split("&") if part.startswith("paths")
            ]
        told = []
        for path in wanted:
            if (content := self.hub.files.get(path)) is None:
                continue
            oid = hashlib.sha256(content).hexdigest()
            entry: dict[str, Any] = {
                "type": "file", "path": path, "size": len(content), "oid": oid[:40],
            }  # fmt: skip
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 100}
            told.append(entry)
        self._say(200, told)

    def _file(self, path: str) -> None:
        content = self.hub.files.get(path)
        if content is None:
            self._say(404, {"error": "not there"}, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": "c" * 40, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self._answer(200, content, headers)

    def _say(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value or {}).encode(), headers or {})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
