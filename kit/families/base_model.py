"""The base model that the settings ask for: found, checked against what they claim, loaded."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from kit import catalog
from kit.basemodel import (
    ModelFile,
    check_claims,
    check_inpainting,
    decide_prediction,
    detect,
    fetching,
    locate,
)
from kit.basemodel.mismatches import known_of_file, of_other_families, size_mismatches
from kit.catalog.base_models import PREDICTS
from kit.devices import DTYPES
from kit.errors import ModelError, SettingsError
from kit.events import Cached, Event, Noticed
from kit.families import Family, Prediction
from kit.families.loading import load_family
from kit.families.undivided import spare_divisions
from kit.settings import Settings
from kit.settings.effective import base_precision, keeps_attention_matrices
from kit.settings.unet_blocks import misfits

DOWNLOAD = "the base model (MB)"
PERIOD = 1.0  # seconds between two events of a download


def require_model(name: str) -> None:
    """A plan may be drawn without a base model; a training needs one.

    Raises: ModelError where it is blank.
    """
    if not name.strip():
        raise ModelError(
            "pretrained_model_name_or_path is blank.",
            "It is a .safetensors or .ckpt file, a diffusers folder, or a Hugging Face id.",
            "Set it to the base model that the LoRA is for.",
        )


def fetched_model(name_or_path: str) -> Generator[Event, None, Path]:
    """Where the base model lies; where it is fetched, about each second how much has come, in MB.

    Raises: ModelError where there is none.
    """
    last = 0.0
    with closing(fetching(name_or_path)) as job:
        while True:
            try:
                here, whole = next(job)
            except StopIteration as end:
                found: Path = end.value
                break
            if time.monotonic() - last >= PERIOD:
                last = time.monotonic()
                yield Cached(DOWNLOAD, int(here / 1e6), int(max(here, whole) / 1e6))
    if last:
        yield Cached(DOWNLOAD, 1, 1)
        yield Noticed(f"the base model has come: {_told(detect(found))}")
    return found


def _told(file: ModelFile) -> str:
    """What it turned out to be."""
    predicts = PREDICTS.get(file.predicts or "", "does not say what it predicts")
    return f"{file.path.name}, {file.label}, {predicts}"


def find_model(settings: Settings, path: Path | None = None) -> tuple[ModelFile, tuple[str, ...]]:
    """The base model's file or folder, and what the person should know about it.

    path: where it lies, if `fetched_model` has told that already.

    Raises: ModelError where there is none, or it contradicts the settings.
    """
    model = settings.model
    file = detect(path or locate(model.pretrained_model_name_or_path))
    check_inpainting(file, train_inpainting=model.train_inpainting)
    if settings.noise.zero_terminal_snr is not None:
        file = replace(file, zero_terminal_snr=settings.noise.zero_terminal_snr)
    notices = check_claims(
        file, v2=model.v2, v_parameterization=model.v_parameterization, sdxl=model.sdxl
    )
    known = known_of_file(file)
    unfit = [each.text for each in size_mismatches(known, settings.images.size)]
    idle = of_other_families(known, settings.changed())
    return file, (*notices, *unfit, *_check_model(settings, file), *idle)


def _check_model(settings: Settings, file: ModelFile) -> Iterator[str]:
    """What can only be judged once the model has said what it is.

    Raises: SettingsError where a loss belongs to the other sort of model, or lists of blocks to
    another family.
    """
    if wrong_blocks := list(misfits(settings.blocks, catalog.FAMILIES[file.family].blocks)):
        raise SettingsError(wrong_blocks)
    claimed = settings.model.v_parameterization
    is_v = decide_prediction(file, v_parameterization=claimed) == Prediction.V
    noise, wrong = settings.noise, []
    if noise.scale_v_pred_loss_like_noise_pred and not is_v:
        wrong.append("scale_v_pred_loss_like_noise_pred: it is for models that predict v")
    if noise.v_pred_like_loss and is_v:
        wrong.append("v_pred_like_loss: it is for models that predict noise")
    if wrong:
        other = f"and {file.path.name} is of the other sort; turn it off"
        raise SettingsError([f"[noise] {text}, {other}" for text in wrong])
    multiple = catalog.FAMILIES[file.family].size_multiple
    if settings.images.enable_bucket and (step := settings.images.bucket_reso_steps) % multiple:
        yield (
            f"bucket_reso_steps = {step} is no multiple of {multiple}, the steps that "
            f"{file.label} was made for; kohya's trainer refuses it, here it works"
        )
    if file.zero_terminal_snr and not is_v:
        yield (
            "zero_terminal_snr is on for a model that predicts noise: at pure noise that says "
            "nothing about the picture; such models are made to predict v"
        )


def load_model(
    settings: Settings,
    file: ModelFile,
    device: torch.device,
    *,
    rests: bool = False,
    sharded: bool = False,
) -> Family:
    """The base model in the precision that is asked for.

    rests, sharded: see `kit.families.loading.load_family`.

    Raises: ModelError where weights are missing, damaged or of another shape.
    """
    dtype = DTYPES[settings.memory.mixed_precision]
    overflows = dtype is torch.float16 and catalog.FAMILIES[file.family].half_vae_overflows
    whole = settings.memory.no_half_vae or (overflows and not settings.model.vae)
    family = load_family(
        file,
        predicts=Prediction(
            decide_prediction(file, v_parameterization=settings.model.v_parameterization)
        ),
        device=device,
        dtype=dtype,
        vae_dtype=torch.float32 if whole else dtype,
        vae=settings.model.vae,
        base_precision=base_precision(settings.memory),
        compress_text_encoders=settings.memory.compress_text_encoders,
        mapped=not settings.memory.disable_mmap_load_safetensors,
        rests=rests,
        sharded=sharded,
    )
    plain = keeps_attention_matrices(settings.memory)
    family.unet.set_attn_processor(AttnProcessor() if plain else AttnProcessor2_0())
    if settings.machine.dynamo_backend == "no":  # compilers see to it themselves
        spare_divisions(family.unet)
    return family
