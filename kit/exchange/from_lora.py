"""The settings that a LoRA file was trained with, from its metadata.

Ours carry all of them; of other trainers' files as much is taken as their ss_* entries say.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from kit import catalog
from kit.catalog.lora_shapes import magnitudes_on_output
from kit.errors import SettingsError, Unreadable
from kit.exchange import datasets_told, networks, sd_scripts_rules
from kit.exchange.dialect import (
    Dialect,
    Entries,
    Outcome,
    Rule,
    elsewhere,
    kept_from,
    no_effect,
    refused,
    take,
    translate,
    translated,
)
from kit.exchange.known import Foreign, trainer_args
from kit.exchange.report import Line, Verdict
from kit.reading.texts import from_json
from kit.settings import Settings, declarations

RECIPE = "lorakit_settings"
NETWORK_ARGS = "ss_network_args"
NAMES = {
    "ss_batch_size_per_device": "train_batch_size",
    "ss_debiased_estimation": "debiased_estimation_loss",
    "ss_sd_model_name": "pretrained_model_name_or_path",
    "ss_vae_name": "vae",
    "modelspec.title": "metadata_title",
    "modelspec.author": "metadata_author",
    "modelspec.description": "metadata_description",
    "modelspec.license": "metadata_license",
    "modelspec.tags": "metadata_tags",
}
FACT = "tells what happened; no setting"
FACTS = re.compile(
    r"ss_(session_id|training_(started|finished)_at|num_\w+|steps|epoch|sd_scripts_commit_hash"
    r"|total_batch_size|\w*hash|dataset_dirs|reg_dataset_dirs|tag_frequency|bucket_info|datasets)"
    r"|sshs_\w+|modelspec\.(sai_model_spec|architecture|implementation\w*|date|resolution"
    r"|prediction_type|encoder_layer|hash_sha256|thumbnail|timestep_range|merged_from)|format"
)
OPTIMIZER = re.compile(r"(?P<path>[\w.]+)(?:\((?P<args>.*)\))?", re.DOTALL)


def from_metadata(
    metadata: Mapping[str, str], base: Settings | None = None
) -> tuple[Settings, list[Line]]:
    """The recipe, or what the trainer's own entries tell.

    base: what counts where others' entries say nothing. Our recipe says all that shapes a training.

    Raises: SettingsError where there is neither.
    """
    if RECIPE in metadata:
        return _from_recipe(metadata[RECIPE], base)
    entries = entries_of(metadata)
    if not any(key.startswith("ss_") for key in entries):
        raise SettingsError(
            ["the LoRA file says nothing about how it was made: it has no ss_* metadata"]
        )
    start = (base or Settings()).replace(lr_warmup=0.0)  # a share is never told, only steps
    return translate(dialect(), entries, start)


def with_axis(
    settings: Settings, lines: list[Line], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Settings, list[Line]]:
    """DoRA's axis as the file's tensors have it, whatever its metadata say or leave out."""
    axis = magnitudes_on_output(shapes)
    if axis is None or not settings.network.dora_wd or axis == settings.network.wd_on_output:
        return settings, lines
    outcome = translated("where the file has its magnitudes", wd_on_output=axis)
    line = Line("dora_scale", "", outcome.verdict, outcome.told, outcome.changes)
    return settings.replace(wd_on_output=axis), [*lines, line]


def entries_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Metadata as values, each of ss_network_args on its own."""
    entries: dict[str, Any] = {}
    for key, text in metadata.items():
        pairs = _json_object(text) if key == NETWORK_ARGS else None
        if pairs:
            entries |= {f"{NETWORK_ARGS}.{name}": value for name, value in pairs.items()}
        else:
            entries[key] = None if text == "None" else text
        if key == datasets_told.KEY:
            entries |= datasets_told.entries_of(text)
    return entries


def recipe_in(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The settings that a LoRA of ours tells; none of another's."""
    return _json_object(metadata.get(RECIPE, "")) or {}


def _from_recipe(text: str, base: Settings | None) -> tuple[Settings, list[Line]]:
    values = _json_object(text)
    if values is None:
        raise SettingsError([f"{RECIPE} in the LoRA file's metadata is damaged"])
    return translate(_recipe_dialect(), values, Settings().replace(**kept_from(base)))


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = from_json(text, RECIPE)
    except Unreadable:
        return None
    return value if isinstance(value, dict) else None


@cache
def _recipe_dialect() -> Dialect:
    """Our own words; a blank stays a blank, and off stays off."""
    names = {name: name for name in declarations()}
    return Dialect(
        "LoRA Kit", names=names, known={}, rules={name: _exactly(name) for name in names}
    )


def _exactly(name: str) -> Rule:
    def rule(value: Any, entries: Entries) -> Outcome:
        return Outcome(Verdict.TAKEN, "", {name: value})

    return rule


@cache
def dialect() -> Dialect:
    """How the metadata spells settings."""
    names = {f"ss_{name}": name for name in declarations()} | NAMES
    known = {
        f"ss_{name}": Foreign(f"ss_{name}", argument.type, argument.default, (), True)
        for name, argument in trainer_args().items()
    }
    known |= networks.known_arguments(f"{NETWORK_ARGS}.")
    return Dialect(
        "the metadata",
        names=names,
        known=known,
        rules=_rules(),
        prefixes={
            f"{NETWORK_ARGS}.": _network_argument,
            f"{datasets_told.KEY}.": datasets_told.rule,
            "": _other_key,
        },
    )


def _other_key(key: str) -> Rule:
    return _fact if FACTS.fullmatch(key) else _none_is_default


def _fact(value: Any, entries: Entries) -> Outcome:
    return no_effect(FACT)


def _none_is_default(value: Any, entries: Entries) -> Outcome | None:
    return no_effect("None: off, or as usual") if value is None else None


def _rules() -> dict[str, Rule]:
    return {
        "ss_network_module": _network_module,
        "ss_network_args": _fact,
        "ss_network_dim": _dim("network_dim"),
        "ss_network_alpha": _dim("network_alpha"),
        "ss_optimizer": _optimizer,
        "ss_lr_scheduler": _schedule,
        "ss_resolution": _resolution,
        "ss_base_model_version": _version,
        "ss_v2": lambda value, entries: no_effect("ss_base_model_version says more"),
        "ss_unet_lr": _rate("unet_lr"),
        "ss_text_encoder_lr": _rate("text_encoder_lr"),
        "ss_lr_warmup_steps": _warmup,
        "ss_multires_noise_iterations": _multires,
    }


def _network_argument(key: str) -> Rule:
    argument = key.removeprefix(f"{NETWORK_ARGS}.")
    return sd_scripts_rules.network_argument(f"{sd_scripts_rules.ARGUMENT}{argument}")


def _network_module(value: Any, entries: Entries) -> Outcome:
    prefix = f"{NETWORK_ARGS}."
    given = {
        f"{sd_scripts_rules.ARGUMENT}{key.removeprefix(prefix)}": argument
        for key, argument in entries.items()
        if key.startswith(prefix)
    }
    return sd_scripts_rules.network_module(value, given)


def _dim(name: str) -> Rule:
    def rule(value: Any, entries: Entries) -> Outcome | None:
        if value == "Dynamic":
            return refused("differs from layer to layer; choose one number", **{name: value})
        return None

    return rule


def _rate(name: str) -> Rule:
    """None is Learning rate there, too."""

    def rule(value: Any, entries: Entries) -> Outcome:
        return take(name, value, told="None means learning_rate" if value is None else "")

    return rule


def _warmup(value: Any, entries: Entries) -> Outcome:
    if value in (None, "0"):
        return translated("no warm-up", lr_warmup=0.0, lr_warmup_steps=None)
    return take("lr_warmup_steps", value)


def _multires(value: Any, entries: Entries) -> Outcome | None:
    if value in (None, "0"):
        return None
    return sd_scripts_rules.multires(value, entries)


def _optimizer(value: Any, entries: Entries) -> Outcome:
    """`torch.optim.adamw.AdamW(weight_decay=0.1)`: the class decides, the rest are arguments."""
    match = OPTIMIZER.fullmatch(str(value))
    path = match["path"] if match else str(value)
    class_name, package = path.rpartition(".")[2], path.partition(".")[0]
    rows = catalog.OPTIMIZERS.items()
    names = [name for name, row in rows if row.code.endswith(f":{class_name}")]
    names.sort(key=lambda name: not catalog.OPTIMIZERS[name].code.startswith(f"{package}."))
    written = (match["args"] or "") if match else ""
    if not names:
        return refused("there is no such optimizer here", optimizer_type=class_name)
    plain = re.sub(r"[()\[\] '\"]", "", written)
    pairs = [part for part in re.split(r",(?=[A-Za-z_]\w*=)", plain) if part]
    return translated("the class", optimizer_type=names[0], optimizer_args=" ".join(pairs))


def _schedule(value: Any, entries: Entries) -> Outcome | None:
    if str(value).startswith("adafactor"):
        return take("lr_scheduler", "constant", told="Adafactor chooses its own rate")
    if value not in catalog.SCHEDULES and value:
        return take("lr_scheduler_type", value, told="a class by name")
    return None


def _resolution(value: Any, entries: Entries) -> Outcome | None:
    """`(512, 512)`, or a side."""
    try:
        size = ast.literal_eval(str(value))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    sides = size if isinstance(size, tuple) else (size, size)
    return take("resolution", ",".join(map(str, sides)))


def _version(value: Any, entries: Entries) -> Outcome | None:
    text = str(value)
    if text.startswith("sdxl"):
        return translated("the family", sdxl=True)
    if text.startswith("sd_v2"):
        return translated("the family", v2=True, **_predicts_v(text))
    if text.startswith("sd_v1"):
        changes = _predicts_v(text)
        return translated("the family", **changes) if changes else no_effect("SD 1.x")
    return elsewhere(f"{text} is another model family; LoRA Kit trains SD 1.x, 2.x and XL")


def _predicts_v(version: str) -> dict[str, Any]:
    return {"v_parameterization": True} if version.endswith("_v") else {}
