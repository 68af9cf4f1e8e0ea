"""Civitai's pages to the file that lies behind them, by its public interface.

    https://civitai.com/models/257749/some-name?modelVersionId=290640    a page of a version
    https://civitai.com/models/257749                                    its newest version
    https://civitai.com/api/download/models/290640?type=Model            a download button

Source: https://developer.civitai.com/site/reference/model-versions
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit.basemodel import web
from kit.errors import ModelError
from kit.settings.links import parts_of

API = "https://civitai.com"
_VERSION = re.compile(r"modelVersionId=(\d+)|/(?:api/download/models|model-versions)/(\d+)")
_MODEL = re.compile(r"/models/(\d+)")


@dataclass(frozen=True)
class Listed:
    """What Civitai tells of a file."""

    url: str
    name: str
    sha256: str = ""


def is_civitai(link: str) -> bool:
    """The link is to Civitai."""
    return parts_of(link).hostname in web.CIVITAI_HOSTS


def version_in(link: str) -> str:
    """The number of the model's version that a link names, or ""."""
    found = _VERSION.search(link)
    return (found[1] or found[2]) if found else ""


def listed(link: str, token: str, *, wants_model: bool = True) -> Listed:
    """The file behind a page or a download link.

    wants_model: a base model, not a VAE.

    Raises: ModelError where there is none, or it is no .safetensors.
    """
    version = _asked(link, token)
    kind = str(_table(version.get("model")).get("type") or "")
    if wants_model and kind not in ("", "Checkpoint"):
        raise ModelError(
            f"{link} is a {kind} on Civitai, not a base model.",
            "A base model is called Checkpoint there.",
            "Take the link of the model that it was made for.",
        )
    files = [file for file in version.get("files") or [] if isinstance(file, dict)]
    safe = [file for file in files if str(file.get("name", "")).lower().endswith(".safetensors")]
    if not safe:
        names = ", ".join(str(file.get("name")) for file in files[:4]) or "no file"
        raise ModelError(
            f"{link} has no .safetensors file; it has {names}.",
            "A pickle can run code when it is read, so none is downloaded.",
            "Choose a version with a .safetensors file.",
        )
    best = min(safe, key=lambda file: _rank(file, link, wants_model))
    hashes = _table(best.get("hashes"))
    return Listed(
        str(best.get("downloadUrl") or f"{API}/api/download/models/{version.get('id')}"),
        str(best["name"]),
        str(hashes.get("SHA256") or "").lower(),
    )


def _asked(link: str, token: str) -> Mapping[str, Any]:
    number = version_in(link)
    if not number:
        model = _MODEL.search(link)
        if model is None:
            raise ModelError(
                f"{link} names no model on Civitai.",
                "A link there looks like https://civitai.com/models/257749?modelVersionId=290640.",
                "Copy the address of the model's page, or of its download button.",
            )
        told = web.asked_json(web.Address(link, f"{API}/api/v1/models/{model[1]}", token))
        versions = [each for each in _table(told).get("modelVersions") or [] if _table(each)]
        number = str(versions[0].get("id")) if versions else "0"
    told = web.asked_json(web.Address(link, f"{API}/api/v1/model-versions/{number}", token))
    return _table(told)


def _rank(file: Mapping[str, Any], link: str, wants_model: bool) -> tuple[bool, bool, bool]:
    """The smaller, the better: as the link says, of the right sort, the one Civitai prefers."""
    asked = "?" in link and str(file.get("downloadUrl", "")).endswith(link.partition("?")[2])
    sort = "Model" if wants_model else "VAE"
    is_model = str(file.get("type", "")) in (sort, "Pruned Model")
    return not asked, not is_model, not file.get("primary")


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
