"""Metadata of a LoRA file about how it was made, in the words of kohya's sd-scripts.

The WebUI, ComfyUI and many tools read it, so keys and spelling are theirs: everything is text as
Python's str() writes it (None, True, 1e-05, (512, 512)). Of a path only the last part is told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import kit
from kit import catalog
from kit.dataset.buckets import Size
from kit.dataset.images import TrainImage
from kit.exchange.networks import arguments_of
from kit.lorafile.dataset_metadata import dataset_metadata
from kit.planning import Plan
from kit.settings import (
    Basic,
    Blocks,
    Captions,
    Metadata,
    Noise,
    Rates,
    Settings,
    Validation,
    declarations,
    effective,
)
from kit.settings.public import public_name, public_settings
from kit.settings.unet_blocks import given_lists, given_weights

MAKER = f"lora-kit/{kit.__version__}"
V_PREDICTION = "v_prediction"
V_VERSIONS = {"sd1": "sd_v1_v", "sd2": "sd_v2_v"}  # instead of the catalog's, where v is predicted
V_ARCHITECTURES = {"sd2": "stable-diffusion-v2-768-v"}

# What the reference can do and we cannot yet, with the values that mean "off" there.
_NONE = "ss_face_crop_aug_range ss_resize_interpolation"
_FALSE = "ss_fp8_base_unet ss_lowram"
OFF: dict[str, Any] = {
    **dict.fromkeys(_NONE.split(), None),
    **dict.fromkeys(_FALSE.split(), False),
}


@dataclass(frozen=True)
class BaseFacts:
    """The base model or a separate VAE, for whoever wants to know what the LoRA was trained on."""

    name: str  # as in the settings: a path, of which only the end is told, or a Hub id
    legacy_hash: str  # as kit.lorafile.tensors.model_hashes has them; "" where there is none
    sha256: str
    predicts: str = "epsilon"  # or "v_prediction"
    zero_terminal_snr: bool = False


def training_metadata(
    plan: Plan,
    *,
    family: str,
    base: BaseFacts,
    vae: BaseFacts | None,
    optimizer: str,
    started_at: float,
    finished_at: float,
    session_id: int,
    step: int,
    epoch: int,
) -> dict[str, str]:
    """Everything that a file saved after this step says, but for the hashes, which write_lora adds.

    family: the catalog's key; optimizer: as "torch.optim.adamw.AdamW(weight_decay=0.1)"; times in
    seconds since 1970; epoch: from 1, also in files of a step (the reference counts these from 0).
    """
    metadata: dict[str, Any] = {
        "ss_session_id": session_id,
        "ss_training_started_at": started_at,
        "ss_training_finished_at": finished_at,
        "ss_output_name": plan.run.name,
        "ss_training_comment": plan.settings.folders.training_comment or None,
        "ss_sd_scripts_commit_hash": MAKER,
        "ss_steps": step,
        "ss_epoch": epoch,
        "ss_optimizer": optimizer,
        **_base(family, base, vae),
        **_lengths(plan.images, plan.settings.basic, plan.seed),
        "ss_num_batches_per_epoch": plan.batches_per_epoch,
        "ss_num_epochs": plan.epochs,
        "ss_max_train_steps": plan.total_steps,
        **_rates(plan.settings.basic, plan.warmup_steps),
        **_network(plan.settings),
        **_choices(plan.settings, family),
        **dataset_metadata(plan),
        **_validation(plan.settings.validation),
        **OFF,
        **_modelspec(
            plan.settings.metadata,
            family,
            base,
            finished_at,
            name=plan.run.name,
            size=plan.size,
            clip_skip=_clip_skip(plan.settings, family),
        ),
        "lorakit_settings": json.dumps(public_settings(plan.settings), separators=(",", ":")),
    }
    # A file name that is no proper text would otherwise end the run at its first save.
    return {key: str(value).encode(errors="replace").decode() for key, value in metadata.items()}


def _base(family: str, base: BaseFacts, vae: BaseFacts | None) -> dict[str, Any]:
    row = catalog.FAMILIES[family]
    predicts_v = base.predicts == V_PREDICTION
    version = V_VERSIONS.get(family, row.base_version) if predicts_v else row.base_version
    facts: dict[str, Any] = {
        "ss_base_model_version": version,
        "ss_v2": row.base_version.startswith("sd_v2"),
        "ss_zero_terminal_snr": base.zero_terminal_snr,
    }
    for part, model in {"sd_model": base, "vae": vae}.items():
        if model:
            facts[f"ss_{part}_name"] = public_name(model.name)
        if model and model.sha256:
            facts[f"ss_{part}_hash"] = model.legacy_hash
            facts[f"ss_new_{part}_hash"] = model.sha256
    return facts


def _lengths(images: Sequence[TrainImage], basic: Basic, seed: int) -> dict[str, Any]:
    return {
        "ss_num_train_images": sum(
            image.repeats for image in images if not image.is_reg and not image.held_out
        ),
        "ss_num_validation_images": sum(image.held_out for image in images),
        "ss_num_reg_images": sum(image.repeats for image in images if image.is_reg),
        "ss_gradient_accumulation_steps": basic.gradient_accumulation_steps,
        "ss_seed": seed,
    }


def _rates(basic: Basic, warmup_steps: int) -> dict[str, Any]:
    """An optimizer that chooses its own rate knows of the given ones only what is frozen."""
    own = effective.controls_lr(basic) == "rate"
    unet, text = (None if own and rate else rate for rate in (basic.unet_lr, basic.text_encoder_lr))
    named = basic.lr_scheduler_type or basic.lr_scheduler
    return {
        "ss_learning_rate": basic.learning_rate,
        "ss_unet_lr": unet,
        "ss_text_encoder_lr": text,
        "ss_lr_scheduler": f"adafactor:{basic.learning_rate}" if own else named,
        "ss_lr_warmup_steps": warmup_steps,
        "ss_max_grad_norm": basic.max_grad_norm,
    }


def _network(settings: Settings) -> dict[str, Any]:
    """Rank and alpha that come from a file may differ by layer: "Dynamic", as kohya's tools say."""
    network = settings.network
    kind, dynamic = catalog.LORA_TYPES[network.LoRA_type], network.dim_from_weights
    alpha = network.network_alpha or float(network.network_dim)
    facts: dict[str, Any] = {
        "ss_network_module": kind.network_module,
        "ss_network_dim": "Dynamic" if dynamic else network.network_dim,
        "ss_network_alpha": "Dynamic" if dynamic else alpha,
        "ss_network_dropout": network.network_dropout or None,
        "ss_scale_weight_norms": network.scale_weight_norms or None,
    }
    args: dict[str, float] = {}
    if effective.reads(network, "conv_dim") and not dynamic:
        conv_dim = network.conv_dim or network.network_dim
        args |= {"conv_dim": conv_dim, "conv_alpha": network.conv_alpha or conv_dim}
    dropouts = {"rank_dropout": network.rank_dropout, "module_dropout": network.module_dropout}
    args |= {name: share for name, share in dropouts.items() if share}
    written: dict[str, Any] = {name: f"{value:.9g}" for name, value in args.items()}
    written |= _parts(settings.blocks, settings.rates)
    given = arguments_of(settings).items()  # the type's own, such as LyCORIS' algorithm
    written |= {name: v for name, v in given if name not in ("conv_dim", "conv_alpha", *written)}
    if written:
        written["dropout"] = network.network_dropout or None
        facts["ss_network_args"] = json.dumps(written)
    return facts


def _parts(blocks: Blocks, rates: Rates) -> dict[str, str]:
    """What is asked of single blocks and of LoRA+, as it stands in network_args."""
    lists = {**given_weights(blocks), **given_lists(blocks)}
    found = {name: text for name, text in lists.items() if text}
    if threshold := blocks.block_lr_zero_threshold:
        found["block_lr_zero_threshold"] = f"{threshold:.9g}"
    ratios = {
        "loraplus_lr_ratio": rates.loraplus_lr_ratio,
        "loraplus_unet_lr_ratio": rates.loraplus_unet_lr_ratio,
        "loraplus_text_encoder_lr_ratio": rates.loraplus_text_encoder_lr_ratio,
    }
    return found | {name: f"{ratio:.9g}" for name, ratio in ratios.items() if ratio}


def _choices(settings: Settings, family: str) -> dict[str, Any]:
    memory = settings.memory
    return {
        "ss_mixed_precision": memory.mixed_precision,
        "ss_full_fp16": memory.full_fp16,
        "ss_fp8_base": memory.fp8_base,
        "ss_gradient_checkpointing": memory.gradient_checkpointing,
        "ss_cache_latents": effective.caches_latents(memory),
        "ss_clip_skip": _clip_skip(settings, family),
        "ss_max_token_length": settings.changed().get("max_token_length"),
        **_noise(settings.noise),
        **_captions(settings.captions),
    }


def _noise(noise: Noise) -> dict[str, Any]:
    offset = effective.noise_offset(noise)
    return {
        "ss_loss_type": noise.loss_type,
        "ss_huber_schedule": noise.huber_schedule,
        "ss_huber_scale": noise.huber_scale,
        "ss_huber_c": noise.huber_c,
        "ss_min_snr_gamma": noise.min_snr_gamma or None,
        "ss_debiased_estimation": noise.debiased_estimation_loss,
        "ss_noise_offset": offset or None,
        "ss_noise_offset_random_strength": bool(offset) and noise.noise_offset_random_strength,
        "ss_adaptive_noise_scale": (offset and noise.adaptive_noise_scale) or None,
        "ss_multires_noise_iterations": effective.multires_levels(noise) or None,
        "ss_multires_noise_discount": noise.multires_noise_discount,
        "ss_ip_noise_gamma": noise.ip_noise_gamma or None,
        "ss_ip_noise_gamma_random_strength": noise.ip_noise_gamma_random_strength,
        "ss_prior_loss_weight": noise.prior_loss_weight,
    }


def _validation(validation: Validation) -> dict[str, Any]:
    return {
        "ss_max_validation_steps": validation.max_validation_steps or None,
        "ss_validate_every_n_epochs": validation.validate_every_n_epochs or None,
        "ss_validate_every_n_steps": validation.validate_every_n_steps or None,
        "ss_validation_seed": validation.validation_seed,
        "ss_validation_split": validation.validation_split,
    }


def _captions(captions: Captions) -> dict[str, Any]:
    return {
        "ss_caption_dropout_rate": captions.caption_dropout_rate,
        "ss_caption_dropout_every_n_epochs": captions.caption_dropout_every_n_epochs,
        "ss_caption_tag_dropout_rate": captions.caption_tag_dropout_rate,
    }


def _clip_skip(settings: Settings, family: str) -> int | None:
    """None where it is 1, and for a family that ignores it."""
    applies = family in declarations()["clip_skip"].families
    return settings.changed().get("clip_skip") if applies else None


def _modelspec(
    told: Metadata,
    family: str,
    base: BaseFacts,
    finished_at: float,
    *,
    name: str,
    size: Size,
    clip_skip: int | None,
) -> dict[str, Any]:
    """Entries of https://github.com/Stability-AI/ModelSpec."""
    row = catalog.FAMILIES[family]
    predicts_v = base.predicts == V_PREDICTION
    architecture = V_ARCHITECTURES.get(family, row.architecture) if predicts_v else row.architecture
    width, height = size
    optional = {
        "author": told.metadata_author,
        "description": told.metadata_description,
        "license": told.metadata_license,
        "tags": told.metadata_tags,
        "encoder_layer": clip_skip,
    }
    entries = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture}/lora",
        "implementation": row.implementation,
        "implementation_version": MAKER,
        "title": told.metadata_title or name,
        "resolution": f"{width}x{height}",
        "date": datetime.fromtimestamp(finished_at).isoformat(timespec="seconds"),
        "prediction_type": "v" if predicts_v else "epsilon",
        **{name: value for name, value in optional.items() if value},
    }
    return {f"modelspec.{name}": value for name, value in entries.items()}
