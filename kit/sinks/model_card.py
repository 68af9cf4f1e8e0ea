"""README.md of a LoRA on the Hub: what it draws, its trigger words, its base and its recipe.

All of it is read from the LoRA file's own metadata, so that the card tells what the file tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kit.errors import Unreadable
from kit.reading.fields import Table
from kit.reading.texts import from_json

MARK = "<!-- written by LoRA Kit, and anew with each upload -->"
REPEATS = re.compile(r"^\d+_")
# Licences that the Hub knows by name; https://huggingface.co/docs/hub/repositories-licenses.
_KNOWN = """afl-3.0 agpl-3.0 apache-2.0 bsd-3-clause cc-by-4.0 cc-by-nc-4.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-4.0 cc0-1.0 creativeml-openrail-m gpl-3.0 lgpl-3.0 mit
    openrail openrail++ unlicense"""
LICENSES = frozenset(_KNOWN.split())
TAGS = ("text-to-image", "lora", "stable-diffusion", "diffusers")


@dataclass(frozen=True)
class Sample:
    """A picture in the repository, and the prompt that drew it."""

    path: str  # relative to the card
    prompt: str


def model_card(
    name: str, metadata: Mapping[str, str], samples: Sequence[Sample], *, has_front: bool
) -> str:
    """The card of the LoRA file `name`.

    has_front: it lies at the top of a repository, where the Hub reads its first lines.
    """
    title = metadata.get("modelspec.title") or name
    words = trigger_words(metadata)
    parts = [f"# {_escaped(title)}", *_about(metadata)]
    if words:
        parts.append("**Trigger words:** " + ", ".join(f"`{word}`" for word in words))
    if samples:
        parts.append("## Samples")
        parts += [f"![{_escaped(s.prompt)}]({_link(s.path)})\n\n`{s.prompt}`" for s in samples]
    parts += _recipe(name, metadata)
    parts.append(MARK)
    front = [_front(metadata, words, samples)] if has_front else []
    return "\n\n".join([*front, *parts]) + "\n"


def trigger_words(metadata: Mapping[str, str]) -> list[str]:
    """The words of the image folders, without their repeats."""
    folders = _object(metadata.get("ss_dataset_dirs"))
    words = (REPEATS.sub("", folder).strip() for folder in folders)
    return list(dict.fromkeys(word for word in words if word))


def _front(metadata: Mapping[str, str], words: list[str], samples: Sequence[Sample]) -> str:
    """The lines that the Hub reads. A JSON text is a YAML text, so quoting is json's."""
    license_name = metadata.get("modelspec.license", "").strip()
    own = [tag.strip() for tag in metadata.get("modelspec.tags", "").split(",") if tag.strip()]
    front: dict[str, Any] = {"tags": [*TAGS, *own]}
    if license_name.lower() in LICENSES:
        front["license"] = license_name.lower()
    elif license_name:
        front |= {"license": "other", "license_name": license_name}
    base = metadata.get("ss_sd_model_name", "")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        front["base_model"] = base
    if words:
        front["instance_prompt"] = ", ".join(words)
    if samples:
        front["widget"] = [{"text": s.prompt, "output": {"url": s.path}} for s in samples]
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items())
    return "\n".join(["---", *lines, "---"])


def _about(metadata: Mapping[str, str]) -> Iterator[str]:
    if text := metadata.get("modelspec.description"):
        yield _escaped(text)
    facts = {
        "By": metadata.get("modelspec.author"),
        "Base model": metadata.get("ss_sd_model_name"),
        "Kind": metadata.get("modelspec.architecture"),
        "Licence": metadata.get("modelspec.license"),
        "Steps": metadata.get("ss_steps"),
        "Rank": metadata.get("ss_network_dim"),
    }
    rows = [f"| {label} | {_cell(value)} |" for label, value in facts.items() if value]
    if rows:
        yield "\n".join(["| | |", "| --- | --- |", *rows])


def _recipe(name: str, metadata: Mapping[str, str]) -> Iterator[str]:
    settings = _object(metadata.get("lorakit_settings"))
    if not settings:
        return
    rows = [f"| `{key}` | {_cell(value)} |" for key, value in settings.items()]
    table = "\n".join(["| Setting | Value |", "| --- | --- |", *rows])
    yield (
        "## Recipe\n\nWhat differs from LoRA Kit's defaults; with your pictures, "
        f"`kit train {name}.safetensors` makes it again.\n\n{table}"
    )


def _object(text: str | None) -> dict[str, Any]:
    try:
        return Table(from_json(text or "{}", "the metadata"), "the metadata").values
    except Unreadable:
        return {}


def _cell(value: object) -> str:
    return _escaped(str(value)).replace("|", "\\|").replace("\n", "<br>")


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("[", "\\[").replace("]", "\\]")


def _link(path: str) -> str:
    return path.replace(" ", "%20").replace("(", "%28").replace(")", "%29")
