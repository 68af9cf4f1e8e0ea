"""A base model with random weights as a diffusers folder, which any trainer reads.

It is written once for each family and precision, and stays: 4.3 GB for SD 1.x in fp32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from kit.bench.models import empty_part, fill
from kit.dataset.tokens import END, START, merges, vocabulary
from kit.diffusion.noise import BETA_END, BETA_START
from kit.errors import OutputError
from kit.families.clip import WINDOW, EncoderPart
from kit.families.loading import FAMILIES, config_folder
from kit.runs.disk import why_unwritten

CLIPPED: dict[str, Any] = {"clip_sample": False, "set_alpha_to_one": False}
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {"sdxl": (EulerDiscreteScheduler, {})}
PIPELINES = {"sdxl": "StableDiffusionXLPipeline"}
DIFFUSERS = "0.27.0"  # that the folder says it was written by: every newer one reads it


def saved_base(folder: Path, key: str, dtype: torch.dtype) -> Path:
    """The folder, written if it is not there: "sd1", "sd2" or "sdxl" in that precision.

    Raises: OutputError where there is no room for it.
    """
    if (folder / "model_index.json").is_file():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part, key, dtype)
        part.replace(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(
            f"{folder} cannot be written: {why_unwritten(error, folder)}.",
            "A base model of real size with random weights is kept there for both programs.",
            "Make room, or name another place for it with LORA_KIT_CACHE.",
        ) from error
    return folder


def write_tokenizer(folder: Path, pad: str) -> None:
    """CLIP's tokenizer in the files that every version of transformers reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges(), ""]), "utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    _write_json(folder / "special_tokens_map.json", special)
    told = {"tokenizer_class": "CLIPTokenizer", "model_max_length": WINDOW, "do_lower_case": True}
    _write_json(folder / "tokenizer_config.json", told | special)


def _write(folder: Path, key: str, dtype: torch.dtype) -> None:
    encoders = FAMILIES[key].encoder_parts(key)
    kinds: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    for name, kind in (kinds | {each.name: each.kind for each in encoders}).items():
        module = empty_part(kind, config_folder(key) / name)
        fill(module, device=torch.device("cpu"), dtype=dtype)
        part = folder / name
        part.mkdir()
        shutil.copy(config_folder(key) / name / "config.json", part)
        is_text = name not in kinds
        file = "model.safetensors" if is_text else "diffusion_pytorch_model.safetensors"
        weights = dict(_as_they_are_kept(module.state_dict(), is_text=is_text))
        save_file(weights, part / file, metadata={"format": "pt"})
        del module, weights
    for encoder in encoders:
        write_tokenizer(folder / encoder.name.replace("text_encoder", "tokenizer"), encoder.pad)
    _scheduler(key).save_pretrained(folder / "scheduler")
    _write_json(folder / "model_index.json", _index(key, encoders))  # last: now it is whole


def _as_they_are_kept(
    weights: Mapping[str, Tensor], *, is_text: bool
) -> Iterator[tuple[str, Tensor]]:
    """Weights by the names in models that people have: transformers 5 leaves out `text_model`."""
    for name, weight in weights.items():
        is_inside = is_text and not name.startswith(("text_model.", "text_projection."))
        yield (f"text_model.{name}" if is_inside else name), weight.contiguous()


def _scheduler(key: str) -> Any:
    shared = {"beta_start": BETA_START, "beta_end": BETA_END, "beta_schedule": "scaled_linear"}
    kind, own = SCHEDULERS.get(key, (DDIMScheduler, CLIPPED))
    return kind(**shared, **own, steps_offset=1)


def _index(key: str, encoders: tuple[EncoderPart, ...]) -> dict[str, Any]:
    pipeline = PIPELINES.get(key, "StableDiffusionPipeline")
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": DIFFUSERS}
    for encoder in encoders:
        index[encoder.name] = ["transformers", encoder.kind.__name__]
        tokenizer = encoder.name.replace("text_encoder", "tokenizer")
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
    if pipeline not in PIPELINES.values():
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    return index | {
        "scheduler": ["diffusers", type(_scheduler(key)).__name__],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2), "utf-8")
