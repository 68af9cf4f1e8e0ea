"""A model from a link: fetched once, gone on with where it broke off, checked, and kept.

    <cache>/models/<key>/source.json      where it is from, its size and hash
    <cache>/models/<key>/<name>.part      what has arrived so far
    <cache>/models/<key>/<name>           the whole file

Only .safetensors are fetched: a pickle can run code when other programs read it.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import re
import shutil
import ssl
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from kit import hosts
from kit.basemodel import civitai, web
from kit.errors import ModelError, Unreadable
from kit.reading.fields import Table
from kit.reading.texts import read_json
from kit.settings import links
from kit.settings.links import parts_of

CHUNK = 1 << 20  # bytes
TRIES = 5  # that bring nothing, one after the other
PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds between them
SPARE = 100_000_000  # bytes of the disk that are left free
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _File:
    """A file to fetch, and what the host told of it."""

    address: web.Address
    folder: Path
    name: str
    sha256: str = ""

    @property
    def whole(self) -> Path:
        return self.folder / self.name

    @property
    def part(self) -> Path:
        return self.folder / f"{self.name}.part"


def downloaded(link: str) -> Path | None:
    """The file of a link that was fetched before; nothing is asked of anybody."""
    folder = _folder(link)
    record = _record(folder)
    file = folder / str(record.get("name", ""))
    try:
        is_whole = bool(record) and file.is_file() and file.stat().st_size == record.get("size")
    except OSError:
        return None
    return file if is_whole else None


def download(link: str, *, wants_model: bool = True) -> Generator[tuple[int, int], None, Path]:
    """Fetch the file of a link, telling the bytes that are here, and in all where that is known.

    link: without secrets; see `kit.settings.links`. wants_model: a base model, not a VAE.

    Raises: ModelError where it cannot be had, or is something else.
    """
    if (here := downloaded(link)) is not None:
        return here
    file = _found(link, wants_model)
    try:
        file.folder.mkdir(parents=True, exist_ok=True)
        yield from _until_whole(file)
    except OSError as error:
        raise _disk_trouble(file, error) from error
    _check(file)
    file.part.replace(file.whole)
    record = {**_record(file.folder), "name": file.name, "size": file.whole.stat().st_size}
    _write(file.folder, record)
    return file.whole


def _folder(link: str) -> Path:
    version = civitai.version_in(link) if civitai.is_civitai(link) else ""
    key = hashlib.sha256(
        (f"civitai {version}" if version else link).encode(errors="surrogatepass")
    ).hexdigest()[:16]
    return hosts.cache_folder() / "models" / key


def _found(link: str, wants_model: bool) -> _File:
    """What to ask for, and by which name it is kept."""
    folder = _folder(link)
    if not civitai.is_civitai(link):
        name = _clean(unquote(parts_of(link).path.rstrip("/").rpartition("/")[2]))
        return _File(web.Address(link, links.whole(link)), folder, name)
    token = links.token_for(parts_of(link).hostname or "") or hosts.secret(web.KEY)
    told = civitai.listed(link, token, wants_model=wants_model)
    is_theirs = parts_of(told.url).netloc == parts_of(civitai.API).netloc
    address = web.Address(link, told.url, token if is_theirs else "")
    return _File(address, folder, _clean(told.name), told.sha256)


def _clean(name: str) -> str:
    """A name that every file system takes."""
    stem = re.sub(r"[^\w.+() -]", "_", name).strip(" .") or "model"
    stem = stem[: -len(".safetensors")] if stem.lower().endswith(".safetensors") else stem
    return f"{stem[:120]}.safetensors"


def _until_whole(file: _File) -> Generator[tuple[int, int], None, None]:
    """One connection after the other, as long as they bring something."""
    failures = 0
    if _size(file.part) > int(_record(file.folder).get("promised") or 0):
        file.part.unlink()  # of another file, or of one whose size is not known
    while not _is_all_here(file):
        before = _size(file.part)
        try:
            yield from _connection(file)
            return
        except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
            failures = 1 if _size(file.part) > before else failures + 1
            if failures >= TRIES:
                raise web.unreachable(file.address, _broke_off(file, error)) from error
        time.sleep(PAUSES[min(failures, len(PAUSES)) - 1])


def _is_all_here(file: _File) -> bool:
    """A process that ended just before the last step left all of it."""
    promised = _record(file.folder).get("promised")
    return bool(promised) and _size(file.part) == promised


def _connection(file: _File) -> Generator[tuple[int, int], None, None]:
    """Fetch what is missing.

    Raises: ConnectionError and its like where the connection breaks off.
    """
    record, have = _record(file.folder), _size(file.part)
    headers = {"Accept-Encoding": "identity"}
    if have and record.get("etag"):
        # Without that, a file that was replaced meanwhile would be sewn together of two.
        headers |= {"Range": f"bytes={have}-", "If-Range": str(record["etag"])}
    with web.opened(file.address, headers) as answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            have = 0
        elif not (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            raise ConnectionError("the host sent another part than was asked for")
        if "text/html" in (answer.headers.get("Content-Type") or "").lower():
            raise web.no_file(file.address, "a web page")
        total = have + int(answer.headers.get("Content-Length") or 0)
        total = total if answer.headers.get("Content-Length") else 0
        _check_room(file, total - have)
        if not have:
            _write(file.folder, _told(file, answer.headers, total))
        yield have, total
        with file.part.open("ab" if have else "wb") as part:
            while chunk := answer.read(CHUNK):
                if not have:
                    _check_start(file, chunk)
                have += part.write(chunk)
                yield have, total
        if total and have < total:
            raise ConnectionError("the connection broke off")


def _told(file: _File, headers: http.client.HTTPMessage, total: int) -> dict[str, Any]:
    etag = headers.get("ETag") or ""
    linked = (headers.get("X-Linked-ETag") or "").strip('"').lower()  # the Hub's and its mirrors'
    return {
        "link": file.address.shown,
        "name": file.name,
        "promised": total,
        "etag": "" if etag.startswith("W/") else etag,
        "sha256": file.sha256 or (linked if _HEX.fullmatch(linked) else ""),
    }


def _check_start(file: _File, start: bytes) -> None:
    """The first bytes say what it is; the rest need not be fetched to know."""
    if start[8:9] == b"{" or len(start) < 9:
        return
    if start.lstrip()[:1] == b"<":
        raise web.no_file(file.address, "a web page")
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise ModelError(
            f"{file.address.shown} is a pickle (.ckpt) or a zip, not a .safetensors file.",
            "A pickle can run code when it is read, so none is downloaded.",
            "Look for the same model as .safetensors.",
        )
    raise web.no_file(file.address, "something else")


def _check_room(file: _File, missing: int) -> None:
    free = shutil.disk_usage(file.folder).free
    if missing + SPARE > free:
        raise ModelError(
            f"{file.address.shown} needs {missing / 1e9:.1f} GB more, and {file.folder} has "
            f"{free / 1e9:.1f} GB free.",
            "LORA_KIT_CACHE names another folder for downloaded models.",
            "Free some space, then start again; what has arrived is kept.",
        )


def _check(file: _File) -> None:
    """Size and hash, as far as the host told them; a wrong file is thrown away."""
    record, size = _record(file.folder), _size(file.part)
    wrong = ""
    if record.get("promised") and size != record["promised"]:
        wrong = f"{size:,} bytes instead of {record['promised']:,}"
    elif size < 9:
        wrong = f"{size} bytes, which is no model"
    elif expected := str(record.get("sha256") or ""):
        with file.part.open("rb") as part:
            digest = hashlib.file_digest(part, "sha256").hexdigest()
        if digest != expected:
            wrong = f"the hash {digest[:12]}... instead of {expected[:12]}..."
    if wrong:
        file.part.unlink(missing_ok=True)
        raise ModelError(
            f"{file.address.shown} arrived damaged: it has {wrong}.",
            "The file was thrown away.",
            "Start again. Where that does not help, the host's copy is damaged.",
        )


def _broke_off(file: _File, error: Exception) -> str:
    have, promised = _size(file.part), int(_record(file.folder).get("promised") or 0)
    of = f" of {promised / 1e9:.2f}" if promised else ""
    return f"{error}; {have / 1e9:.2f}{of} GB have arrived" if have else str(error)


def _disk_trouble(file: _File, error: OSError) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        found = f"The disk is full: {file.address.shown} does not fit into {file.folder}."
    else:
        found = f"{file.folder} cannot be written to: {error.strerror or error}."
    return ModelError(
        found,
        "LORA_KIT_CACHE names another folder for downloaded models.",
        "Free some space or name another folder, then start again; what has arrived is kept.",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _record(folder: Path) -> dict[str, Any]:
    try:
        return Table(read_json(folder / "source.json"), "source.json").values
    except Unreadable:
        return {}


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    new = folder / "source.json.new"
    new.write_text(json.dumps(dict(record), indent=1), "utf-8")
    new.replace(folder / "source.json")
