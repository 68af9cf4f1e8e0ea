"""The kohya_ss GUI's JSON: presets, saved forms, and what it leaves beside a LoRA.

Its loader's own conversions are done here too: old names, texts for numbers, old switches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from kit.errors import SettingsError
from kit.exchange.additional import NAME, with_additional
from kit.exchange.coerce import as_number, fitted, is_blank, is_zero
from kit.exchange.dialect import (
    Dialect,
    Entries,
    Outcome,
    Rule,
    elsewhere,
    no_effect,
    refused,
    take,
    translate,
    translated,
)
from kit.exchange.known import gui_fields
from kit.exchange.report import Line
from kit.exchange.rules import bucket_step, dora, optimizer, schedule, unquoted, whole_rank
from kit.settings import Settings, declarations

RENAMED = MappingProxyType(
    {
        "lora_network_weights": "network_weights",
        "conv_dims": "conv_block_dims",
        "conv_alphas": "conv_block_alphas",
        "stop_text_encoder_training_pct": "stop_text_encoder_training",
        "use_wandb": "log_with",
    }
)
FAMILY_BOXES = {
    "sd3_checkbox": "Stable Diffusion 3",
    "flux1_checkbox": "Flux.1",
    "hunyuan_image_checkbox": "HunyuanImage-2.1",
    "anima_checkbox": "Anima",
    "lumina_checkbox": "Lumina",
}
OTHER_KINDS = ("Anima", "Flux1", "Flux1 OFT", "HunyuanImage-2.1", "Lumina")
SDXL_ONLY = ("sdxl_cache_text_encoder_outputs", "sdxl_no_half_vae")


def from_gui(entries: Entries, base: Settings | None = None) -> tuple[Settings, list[Line]]:
    """Settings from the GUI's JSON; a key that is absent leaves the base's value."""
    return translate(dialect(), entries, base or Settings())


def to_gui(settings: Settings) -> dict[str, Any]:
    """Everything that the GUI saves, so that it loads to the same; secrets stay blank."""
    written: dict[str, Any] = {key: field.default for key, field in gui_fields().items()}
    flat = settings.flat()
    for declared in declarations().values():
        key = declared.gui_key
        if key in written:
            written[key] = _for_gui(declared.name, gui_fields()[key].default, flat)
    # Without the switch accelerate may start one process, in silence.
    written["multi_gpu"] = flat["multi_gpu"] or flat["num_processes"] > 1
    written["model_list"] = "custom"
    return dict(sorted(written.items()))


def as_json(values: Mapping[str, Any]) -> str:
    """The GUI's own layout."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _for_gui(name: str, usual: Any, flat: Mapping[str, Any]) -> Any:
    """A setting's value; the GUI has no blank numbers and no blank switches."""
    value = flat[name]
    if isinstance(value, bool) and isinstance(usual, str):
        return "true" if value else ""
    if value is not None:
        is_number = isinstance(value, int | float) and isinstance(usual, str)
        return (f"{value:g}" if value else "") if is_number else value
    if name in ("unet_lr", "text_encoder_lr"):
        return flat["learning_rate"]
    if name == "conv_dim":
        return flat["network_dim"]
    if isinstance(usual, bool):
        return False
    if name in ("lr_scheduler_num_cycles", "lr_scheduler_power"):
        return usual
    return 0 if isinstance(usual, int | float) else ""


@cache
def dialect() -> Dialect:
    """How the GUI spells settings."""
    names = {d.gui_key: d.name for d in declarations().values() if d.gui_key}
    return Dialect(
        label="the kohya_ss GUI",
        names=names,
        known=gui_fields(),
        rules=_rules(),
        renamed=RENAMED,
        zero_is_unset=True,
    )


def _rules() -> dict[str, Rule]:
    return {
        "LoRA_type": _kind,
        "optimizer": optimizer,
        "network_dim": whole_rank("network_dim", _kind_in, "factor"),
        "conv_dim": whole_rank("conv_dim", _kind_in, "factor"),
        "dora_wd": dora(),
        "use_cp": _use_cp,
        "use_tucker": _use_tucker,
        "use_8bit_adam": _use_8bit_adam,
        "lr_scheduler": schedule("optimizer"),
        "unet_lr": _rate("unet_lr", "text_encoder_lr"),
        "text_encoder_lr": _rate("text_encoder_lr", "unet_lr"),
        "save_model_as": _save_model_as,
        "model_list": _model_list,
        "xformers": _attention,
        "bucket_reso_steps": bucket_step,
        "log_with": _log_with,
        NAME: _additional,
        "resume_from_huggingface": _resume_from_hub,
        "huggingface_repo_visibility": _visibility,
        "optimizer_args": unquoted("optimizer_args"),
        "lr_scheduler_args": unquoted("lr_scheduler_args"),
        **{box: _other_family(label) for box, label in FAMILY_BOXES.items()},
        **dict.fromkeys(SDXL_ONLY, _only_for_sdxl),
    }


def _kind(value: Any, entries: Entries) -> Outcome | None:
    if value == "LoCon":
        return take("LoRA_type", "LyCORIS/LoCon", told="LoCon's name of today")
    if value in OTHER_KINDS:
        return elsewhere(
            f"{value} is for another model family; LoRA Kit trains SD 1.x, 2.x and XL",
            LoRA_type=value,
        )
    return None


def _kind_in(entries: Entries) -> str:
    return str(entries.get("LoRA_type", ""))


def _uses_cp(entries: Entries) -> bool:
    """LoKr's own name of the Tucker decomposition, which counts more than the common one."""
    is_on = str(entries.get("use_cp", "")).strip().lower() in ("true", "1")
    return is_on and _kind_in(entries) == "LyCORIS/LoKr"


def _use_cp(value: Any, entries: Entries) -> Outcome:
    if _uses_cp(entries):
        return take("use_tucker", True, told="the same by another name")
    switched_on = str(value).strip().lower() in ("true", "1")
    return no_effect("only LyCORIS/LoKr reads it" if switched_on else "off, so use_tucker decides")


def _use_tucker(value: Any, entries: Entries) -> Outcome | None:
    return no_effect("use_cp is on, which is the same") if _uses_cp(entries) else None


def _use_8bit_adam(value: Any, entries: Entries) -> Outcome | None:
    if not is_blank(entries.get("optimizer")):
        return no_effect("the old way to choose an optimizer; optimizer is there too and counts")
    switched_on = str(value).strip().lower() in ("true", "1")
    return take(
        "optimizer_type", "AdamW8bit" if switched_on else "AdamW", told="the old switch of it"
    )


def _rate(name: str, other: str) -> Rule:
    """With both rates at 0 the GUI trains both parts at Learning rate."""

    def rule(value: Any, entries: Entries) -> Outcome | None:
        both = (as_number(value), as_number(entries.get(other, 1)))
        if all(rate is not None and is_zero(rate) for rate in both):
            return translated("both rates are 0 there: learning_rate counts", **{name: None})
        if is_blank(value):
            return take(name, 0, told="blank means 0 there")
        return None

    return rule


def _save_model_as(value: Any, entries: Entries) -> Outcome | None:
    if value in ("ckpt", "safetensors"):
        return None
    return take("save_model_as", "safetensors", told="the GUI saves it so")


def _model_list(value: Any, entries: Entries) -> Outcome | None:
    is_named = not is_blank(entries.get("pretrained_model_name_or_path"))
    if is_named or is_blank(value) or value == "custom":
        return None
    return take("pretrained_model_name_or_path", value, told="the quick pick")


def _attention(value: Any, entries: Entries) -> Outcome | None:
    """It was a switch."""
    if not isinstance(value, bool):
        return None
    return take("cross_attention", "xformers" if value else "none", told="was a switch")


def _log_with(value: Any, entries: Entries) -> Outcome | None:
    """`use_wandb` was a switch."""
    if str(value).lower() not in ("true", "false"):
        return None
    return take("log_with", "wandb" if str(value).lower() == "true" else "", told="was a switch")


def _additional(value: Any, entries: Entries) -> Outcome | None:
    """It is read when a run is planned; here only whether it can be."""
    taken = take(NAME, str(value or ""))
    try:
        _, problems, _ = with_additional(Settings().replace(**taken.changes))
    except SettingsError:
        return taken  # a secret, which the setting itself refuses
    if not problems:
        return taken
    return refused("; ".join(problems), **taken.changes)


def _resume_from_hub(value: Any, entries: Entries) -> Outcome:
    """The GUI has a text field for this switch: any text is on."""
    return take("resume_from_huggingface", not is_blank(value))


def _visibility(value: Any, entries: Entries) -> Outcome | None:
    """Free text in the GUI: all but one word means private."""
    if is_blank(value) or value in ("public", "private"):
        return None
    return take("huggingface_repo_visibility", "private", told="all but public means it there")


def _other_family(label: str) -> Rule:
    def rule(value: Any, entries: Entries) -> Outcome | None:
        if str(value).strip().lower() not in ("true", "1"):
            return no_effect("another model family, and off")
        return elsewhere(f"the file trains {label}; LoRA Kit trains SD 1.x, 2.x and XL")

    return rule


def _only_for_sdxl(value: Any, entries: Entries) -> Outcome | None:
    """The GUI sends these for SDXL only, ticked or not."""
    is_on = str(value).strip().lower() in ("true", "1")
    if not is_on or fitted(declarations()["sdxl"], entries.get("sdxl", True)):
        return None
    return no_effect("the GUI sends it for SDXL only")
