"""Preflight: what a training would refuse of its model files, told in the plan already.

Files on this machine are looked at, and nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from kit.basemodel.claims import check_claims, check_inpainting
from kit.basemodel.detecting import ModelFile, detect
from kit.basemodel.downloading import downloaded
from kit.basemodel.headers import SUFFIXES, read_header
from kit.errors import ModelError, Unreadable
from kit.reading import paths
from kit.settings import Model, Settings
from kit.settings.links import is_link, tidied

ON_THE_HUB = re.compile(r"https://\S+|[A-Za-z0-9][\w.-]*/[\w.-]+(/[\w./-]+)?")


def foreseen_refusals(settings: Settings) -> Iterator[str]:
    """A sentence for each file that is not there or is something else."""
    model = settings.model
    named = {
        "pretrained_model_name_or_path": model.pretrained_model_name_or_path,
        "vae": model.vae,
    }
    for name, text in named.items():
        if text.strip() and not _exists(text) and not ON_THE_HUB.fullmatch(text.strip()):
            yield f"training would be refused: {name} = {text} {_missing(text)}"
    if refusal := _refused_weights(settings.network.network_weights):
        yield f"training would be refused: network_weights{refusal}"
    if refusal := _refused_model(model):
        first = " ".join(refusal.splitlines()[0].split())
        yield f"training would be refused: pretrained_model_name_or_path: {first}"


def _missing(text: str) -> str:
    """Why a name leads nowhere, and what to do."""
    if is_link(text):
        return "is no link that is fetched; write it with https://"
    return "is not on this machine; correct the path, or give a Hub id (owner/name) or a link"


def found_model(name_or_path: str) -> ModelFile | ModelError | None:
    """The model at a path here or fetched from a link before, what is wrong with it, or None."""
    name = tidied(name_or_path)
    try:
        path = downloaded(name) if is_link(name) else paths.path_of(name)
        if not name or path is None or not paths.is_there(path):
            return None
        return _detected(path, path.stat().st_mtime_ns)
    except (Unreadable, OSError):  # no path, or gone just now
        return None


def _refused_weights(text: str) -> str:
    """What is wrong with the LoRA file to go on from, or an empty string."""
    if not text.strip():
        return ""
    if not _exists(text):
        return f" = {text} is not on this machine"
    path = paths.path_of(text.strip())
    if paths.is_folder(path):
        is_adapter = paths.is_file(path / "adapter_config.json")  # PEFT's; its layout is told apart
        return "" if is_adapter else f" = {text} is a folder, and a LoRA is one file"
    if path.suffix.lower() not in SUFFIXES:
        return ""
    try:
        read_header(path)
    except ModelError as error:
        return f": {error.found}"
    except OSError as error:
        return f" = {text} cannot be read: {error.strerror}"
    is_base = isinstance(found_model(text), ModelFile)
    return f" = {text} is a base model, not a LoRA" if is_base else ""


def _exists(text: str) -> bool:
    plain = text.strip()
    return not paths.why_no_path(plain) and bool(plain) and paths.is_there(paths.path_of(plain))


@lru_cache(maxsize=16)
def _detected(path: Path, _changed: int) -> ModelFile | ModelError:
    try:
        return detect(path)
    except ModelError as error:
        return error


def _refused_model(model: Model) -> str:
    """What is wrong with the base model or with what is claimed of it, or an empty string."""
    found = found_model(model.pretrained_model_name_or_path)
    if isinstance(found, ModelError):
        return found.found
    if found is None:
        return ""
    try:
        check_inpainting(found, train_inpainting=model.train_inpainting)
        check_claims(
            found, v2=model.v2, v_parameterization=model.v_parameterization, sdxl=model.sdxl
        )
    except ModelError as error:
        return error.found
    return ""
