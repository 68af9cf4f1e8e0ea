"""sd-scripts' arguments: a TOML file of them, and what a command line says.

An argument that is absent has the trainer's default there, which is often not ours: those are
assumed, and the report lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from kit import catalog
from kit.errors import SettingsError
from kit.exchange import networks
from kit.exchange.coerce import as_number, fitted, is_blank
from kit.exchange.dialect import BLANK_STANDS_FOR, Entries, is_kept, translate
from kit.exchange.incompatibilities import is_for_sdxl_only
from kit.exchange.known import trainer_args
from kit.exchange.report import Line
from kit.exchange.sd_scripts_rules import ARGUMENT, dialect
from kit.settings import Basic, Model, Noise, Rates, Settings, declarations
from kit.settings.effective import warms_up
from kit.settings.optimizer_args import parse_optimizer_args

NOT_ASSUMED = ("dataset_repeats", "lr_warmup_steps", "dynamo_backend")  # mean something else there
OFF_MEANS = {"save_precision": "float", "network_dim": 4, "optimizer_type": "AdamW"}


def from_sd_scripts(
    entries: Entries, *, assumes_defaults: bool, base: Settings | None = None
) -> tuple[Settings, list[Line], dict[str, Any]]:
    """Settings from arguments, a line for each, and what was assumed for those that are absent.

    base: its places and what shapes no number stay, where the arguments do not mention them.
    """
    before = base or Settings()
    assumptions = _assumed(entries) if assumes_defaults else {}
    if base:
        assumptions = {name: v for name, v in assumptions.items() if not is_kept(name)}
    start = before.replace(**assumptions)
    settings, lines = translate(dialect(), entries, start)
    told = {name for line in lines for name in line.changes}
    old, new = before.flat(), settings.flat()
    assumed = {name: new[name] for name in new if name not in told and new[name] != old[name]}
    return settings, lines, assumed


def entries_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without tables, each of network_args on its own; the last of one name counts."""
    return dict(entries_in(arguments))


def entries_in(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The same one by one, also those that stand twice."""
    for name, value in _without_tables(arguments):
        pairs = _pairs(value) if name == "network_args" else []
        if pairs:
            yield from ((f"{ARGUMENT}{key}", text) for key, text in pairs)
        else:
            yield name, value


def _without_tables(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def _pairs(value: Any) -> list[tuple[str, str]]:
    """`conv_dim=4` and the like; what has no = stands for itself."""
    texts = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    pairs = (str(text).strip("\"' ").partition("=") for text in texts)
    return [(name.strip(), text.strip()) for name, _, text in pairs if name.strip()]


def _assumed(entries: Entries) -> dict[str, Any]:
    """The trainer's defaults, as settings, of what is not there."""
    assumed = {name: value for name, value in _defaults().items() if name not in entries}
    if as_number(entries.get("max_train_epochs")):
        assumed["max_train_steps"] = None
    return assumed


@cache
def _defaults() -> dict[str, Any]:
    """The trainer's defaults, as settings."""
    defaults: dict[str, Any] = {"lr_warmup": 0.0}
    for name, argument in trainer_args().items():
        declared = declarations().get(name)
        if declared is None or name in NOT_ASSUMED:
            continue
        value = fitted(declared, argument.default)
        if value is False and declared.optional:
            value = None
        if is_blank(value):
            value = OFF_MEANS.get(name, None if declared.optional else declared.default)
        defaults[name] = None if BLANK_STANDS_FOR.get(name) == value else value
    return {name: value for name, value in defaults.items() if _is_possible(name, value)}


def _is_possible(name: str, value: Any) -> bool:
    try:
        Settings().replace(**{name: value})
    except SettingsError:
        return False
    return True


# ------------------------------------------------------------------------------------------- out


def to_sd_scripts(settings: Settings) -> dict[str, Any]:
    """The arguments that make sd-scripts do the same, as far as it can."""
    module, _ = networks.module_of(settings.network.LoRA_type)
    pairs = networks.arguments_of(settings)
    written: dict[str, Any] = {"network_module": module}
    if pairs:
        written["network_args"] = [f"{name}={text}" for name, text in pairs.items()]
    elsewhere = {*map(networks.setting_of, pairs), "unet_lr", "text_encoder_lr", *NOT_ASSUMED}
    for name, value in settings.flat().items():
        known = name in trainer_args() and name not in elsewhere
        if known and not _is_left_out(name, value, settings.model, settings.noise):
            written[name] = _for_trainer(name, value)
    written |= _lengths(settings.basic, settings.rates) | _rates(settings.basic)
    if settings.machine.dynamo_backend != "no":
        written |= {"torch_compile": True, "dynamo_backend": settings.machine.dynamo_backend}
    if settings.memory.cross_attention in trainer_args():
        written[settings.memory.cross_attention] = True
    return written


def _is_left_out(name: str, value: Any, model: Model, noise: Noise) -> bool:
    """Absent means the same there, or another argument says it."""
    if is_for_sdxl_only(name) and not model.sdxl:
        return True
    multires = noise.noise_offset_type == "Multires"
    if name in (("noise_offset",) if multires else ("multires_noise_iterations",)):
        return True
    if name in ("clip_skip", "max_token_length") and value == declarations()[name].default:
        return True
    usual = trainer_args()[name].default
    is_off = value is None or value is False or value == ""  # 0 == False, and 0 is not off
    return is_off or (value == 0 and not usual)


def _for_trainer(name: str, value: Any) -> Any:
    kind = trainer_args()[name].type
    if trainer_args()[name].is_list:
        return _pieces(str(value))
    return float(value) if kind == "float" else value


def _pieces(text: str) -> list[str]:
    """`betas=0.9,0.99 foo=bar` as Python literals, which is how the reference reads them."""
    try:
        values = parse_optimizer_args(text)
    except ValueError:
        return text.split()
    return [
        f"{name}={','.join(map(repr, value)) if isinstance(value, tuple) else repr(value)}"
        for name, value in values.items()
    ]


def _lengths(basic: Basic, rates: Rates) -> dict[str, Any]:
    row = catalog.SCHEDULES[basic.lr_scheduler]
    lengths: dict[str, Any] = {}
    only_constant = rates.lr_warmup_only_constant
    is_cold = only_constant and not warms_up(basic, rates)
    if not basic.max_train_epochs and not basic.max_train_steps:
        lengths["max_train_epochs"] = basic.epoch
    if not row.warms_up or basic.lr_scheduler_type or is_cold:
        lengths["lr_warmup_steps"] = 0
    elif basic.lr_warmup_steps is not None:
        lengths["lr_warmup_steps"] = basic.lr_warmup_steps
    else:
        lengths["lr_warmup_steps"] = basic.lr_warmup / 100
    return lengths


def _rates(basic: Basic) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    if basic.unet_lr == 0:
        rates["network_train_text_encoder_only"] = True
    elif basic.unet_lr is not None:
        rates["unet_lr"] = basic.unet_lr
    if basic.text_encoder_lr == 0:
        rates["network_train_unet_only"] = True
    elif basic.text_encoder_lr is not None:
        rates["text_encoder_lr"] = [basic.text_encoder_lr]
    return rates
