"""Names of the weight files inside a diffusers folder.

A repository often holds the same weights four times (safetensors and pickle, each in full and half
precision); one set per part is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
# Best first: safe before pickle, and full precision before half within each.
_PREFERENCE = (("safetensors", None), ("safetensors", "fp16"), ("bin", None), ("bin", "fp16"))


@dataclass(frozen=True)
class Weights:
    """The weight files to take for one part."""

    names: tuple[str, ...]
    suffix: str  # "safetensors" or "bin"
    variant: str | None  # "fp16" where only half precision is there

    @property
    def is_safetensors(self) -> bool:
        """Whether no pickle has to be read."""
        return self.suffix == "safetensors"


def choose_weights(names: Iterable[str]) -> Weights | None:
    """The best set among the file names of one part's folder; None where there is none."""
    present = set(names)
    for suffix, variant in _PREFERENCE:
        pattern = _pattern(suffix, variant)
        chosen = sorted(name for name in present if pattern.fullmatch(name))
        shards = [name for name in chosen if "-of-" in name]
        whole = [name for name in chosen if name not in shards and not name.endswith(".json")]
        if whole:
            return Weights((whole[0],), suffix, variant)
        if (
            shards
            and len(shards) == int(shards[0].split("-of-")[1][:5])
            and len(chosen) > len(shards)
        ):
            return Weights(tuple(chosen), suffix, variant)  # the shards and their index
    return None


def _pattern(suffix: str, variant: str | None) -> re.Pattern[str]:
    """File names of this format and precision: whole, in shards, or the shards' index."""
    stem = f"(?:{'|'.join(_STEMS)})"
    mark = rf"\.{variant}" if variant else ""
    whole = rf"{stem}{mark}\.{suffix}"
    shard = rf"{stem}{mark}-\d{{5}}-of-\d{{5}}{mark if variant else ''}\.{suffix}"
    old_shard = rf"{stem}-\d{{5}}-of-\d{{5}}{mark}\.{suffix}"
    index = rf"{stem}{mark}\.{suffix}\.index\.json|{stem}\.{suffix}\.index{mark}\.json"
    return re.compile(f"{whole}|{shard}|{old_shard}|{index}")


def wanted_files(files: Iterable[str]) -> list[str]:
    """Which of a repository's files make up the model: settings, tokenizers and one set of weights.

    Works for a whole diffusers repository and for one that holds a single part at its root.
    """
    by_folder: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        by_folder.setdefault(folder, []).append(name)
    wanted: list[str] = []
    for folder in ("", *PARTS):
        names = by_folder.get(folder, [])
        weights = choose_weights(names)
        chosen = [name for name in names if name in ("config.json", "model_index.json")]
        chosen += weights.names if weights else ()
        wanted += [f"{folder}/{name}" if folder else name for name in chosen]
    for folder in ("scheduler", "tokenizer", "tokenizer_2"):
        names = by_folder.get(folder, [])
        wanted += [f"{folder}/{name}" for name in names if name.endswith((".json", ".txt"))]
    return wanted
