"""What sd-scripts' arguments mean here, each with its rule where it is not simply a setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from kit.exchange import networks
from kit.exchange.coerce import as_number, fitted, is_blank
from kit.exchange.dialect import (
    Dialect,
    Entries,
    Outcome,
    Rule,
    elsewhere,
    no_effect,
    refused,
    take,
    translated,
)
from kit.exchange.known import trainer_args
from kit.exchange.rules import bucket_step, dora, optimizer, schedule, unquoted, whole_rank
from kit.settings import declarations
from kit.settings.launch_args import OF_DEEPSPEED

ARGUMENT = "network_args."  # before the name of an argument of the network
LAUNCHER = "accelerate."  # before an option of `accelerate launch`
SCRIPT = "script"
# What several machines need; the rest of the launcher's options is how it talks.
PASSED_ON = ("machine_rank", "main_process_ip", "same_network", "rdzv_backend", "rdzv_conf")
OF_SDXL = "sdxl_train_network.py"
OF_OTHER_FAMILIES = re.compile(r"networks\.\w+_(?:flux|sd3|lumina|anima|hunyuan\w*|wan|qwen\w*)")
SCRIPTS = ("train_network.py", OF_SDXL)


@cache
def dialect() -> Dialect:
    """How sd-scripts spells settings."""
    return Dialect(
        label="sd-scripts",
        names={name: name for name in declarations()},
        known={**trainer_args(), **networks.known_arguments(ARGUMENT)},
        rules=_rules(),
        prefixes={ARGUMENT: network_argument, LAUNCHER: _launcher},
        renamed={"caption_extention": "caption_extension"},
    )


def _rules() -> dict[str, Rule]:
    return {
        SCRIPT: _script,
        "network_module": network_module,
        "network_args": _no_network_args,
        "network_train_unet_only": _only("text_encoder_lr"),
        "network_train_text_encoder_only": _only("unet_lr"),
        "xformers": _attention("xformers"),
        "sdpa": _attention("sdpa"),
        "fp8_base_unet": _fp8,
        "torch_compile": _torch_compile,
        "dynamo_backend": _dynamo_backend,
        "network_dim": whole_rank("network_dim", _kind_in, f"{ARGUMENT}factor"),
        "optimizer_type": optimizer,
        "use_8bit_adam": _old_switch("AdamW8bit"),
        "use_lion_optimizer": _old_switch("Lion"),
        "lr_scheduler": schedule("optimizer_type"),
        "lr_warmup_steps": _warmup,
        "lr_decay_steps": _decay,
        "max_train_epochs": _epochs,
        "max_train_steps": _steps,
        "text_encoder_lr": _first_rate,
        "optimizer_args": unquoted("optimizer_args"),
        "lr_scheduler_args": unquoted("lr_scheduler_args"),
        "epoch": lambda value, entries: no_effect("sd-scripts reads max_train_epochs instead"),
        "dataset_repeats": lambda value, entries: no_effect("counts only with in_json there"),
        "noise_offset": _noise_offset,
        "bucket_reso_steps": bucket_step,
        "multires_noise_iterations": multires,
    }


def _script(value: Any, entries: Entries) -> Outcome:
    name = str(value).replace("\\", "/").rpartition("/")[2]
    if name not in SCRIPTS:
        return elsewhere(
            f"{name} trains something else; LoRA Kit does what {' and '.join(SCRIPTS)} do"
        )
    if name == OF_SDXL:
        return translated("the trainer of SDXL", sdxl=True)
    return no_effect("the trainer of SD 1.x and 2.x; LoRA Kit takes its place")


def _kind_in(entries: Entries) -> str:
    """The LoRA type, or blank."""
    arguments = {k.removeprefix(ARGUMENT): v for k, v in entries.items() if k.startswith(ARGUMENT)}
    return networks.kind_of(str(entries.get("network_module", "")), arguments) or ""


def network_module(value: Any, entries: Entries) -> Outcome:
    """The LoRA type of a module with its arguments."""
    kind = _kind_in({**entries, "network_module": value})
    if not kind and OF_OTHER_FAMILIES.fullmatch(str(value)):
        return elsewhere(
            f"{value} is for another model family; LoRA Kit trains SD 1.x, 2.x and XL",
            LoRA_type=str(value),
        )
    if not kind:
        return refused("there is no such LoRA type here", LoRA_type=str(value))
    return translated("in the GUI's words", LoRA_type=kind)


def _no_network_args(value: Any, entries: Entries) -> Outcome:
    return no_effect("empty")


def network_argument(key: str) -> Rule:
    """One of network_args."""
    argument = key.removeprefix(ARGUMENT)

    def rule(value: Any, entries: Entries) -> Outcome | None:
        if argument == "algo":
            return no_effect("part of network_module, see there")
        if argument == "dora_wd" and (outcome := dora(ARGUMENT)(value, entries)):
            return outcome
        if argument == "conv_dim":
            whole = whole_rank("conv_dim", _kind_in, f"{ARGUMENT}factor")(value, entries)
            if whole:
                return whole
        name = networks.setting_of(argument)
        if name is None or (argument == networks.DROPOUT and is_blank(value)):
            return no_effect("blank") if is_blank(value) else None
        return take(name, value)

    return rule


def _launcher(key: str) -> Rule:
    """An option of `accelerate launch`."""

    def rule(value: Any, entries: Entries) -> Outcome:
        if key == f"{LAUNCHER}mixed_precision":
            if "mixed_precision" in entries:
                return no_effect("the trainer's own --mixed_precision counts")
            return translated("accelerate's option", mixed_precision=value)
        name = key.removeprefix(LAUNCHER)
        if name in declarations():
            return take(name, value)
        if name in PASSED_ON:
            text = " ".join(_passed_on(entries))
            return translated("accelerate's option", extra_accelerate_launch_args=text)
        if OF_DEEPSPEED.fullmatch(name):
            return no_effect("no DeepSpeed here: there is little to divide")
        return no_effect("LoRA Kit's own launch does without it")

    return rule


def _passed_on(entries: Entries) -> Iterator[str]:
    """The launcher's options that have no field, as they are entered."""
    for key, value in entries.items():
        name = key.removeprefix(LAUNCHER)
        if key.startswith(LAUNCHER) and name in PASSED_ON:
            yield f"--{name}" if value is True else f"--{name} {value}"


def _only(other: str) -> Rule:
    """Only one part learns."""

    def rule(value: Any, entries: Entries) -> Outcome:
        if str(value).strip().lower() in ("true", "1"):
            return translated("the other part does not learn", **{other: 0.0})
        return no_effect("off")

    return rule


def _attention(name: str) -> Rule:
    def rule(value: Any, entries: Entries) -> Outcome:
        if str(value).strip().lower() not in ("true", "1"):
            return no_effect("off")
        return translated("a choice here", cross_attention=name)

    return rule


def _torch_compile(value: Any, entries: Entries) -> Outcome:
    if not _compiles(entries):
        return no_effect("off")
    return take("dynamo_backend", entries.get("dynamo_backend", "inductor"), told="on")


def _dynamo_backend(value: Any, entries: Entries) -> Outcome | None:
    """It chooses how torch_compile compiles, and does nothing alone."""
    if str(value).strip().lower() == "no" or _compiles(entries):
        return None
    return no_effect("counts only with torch_compile there")


def _compiles(entries: Entries) -> bool:
    return str(entries.get("torch_compile", "")).strip().lower() in ("true", "1")


def _fp8(value: Any, entries: Entries) -> Outcome:
    return take("fp8_base", value, told="the U-Net alone")


def _old_switch(name: str) -> Rule:
    def rule(value: Any, entries: Entries) -> Outcome:
        if str(value).strip().lower() not in ("true", "1"):
            return no_effect("off")
        if not is_blank(entries.get("optimizer_type")):
            return refused("given together with optimizer_type; keep one", optimizer_type=name)
        return take("optimizer_type", name, told="the old switch of it")

    return rule


def share_of(value: Any) -> float | None:
    """`0.1` or `10%` as a share; None where it is a number of steps."""
    text = str(value).strip()
    if text.endswith("%"):
        number = as_number(text[:-1])
        return None if number is None else number / 100
    number = as_number(value)
    is_whole = isinstance(value, int) or text.isdigit()
    return number if number is not None and 0 < number <= 1 and not is_whole else None


def _warmup(value: Any, entries: Entries) -> Outcome | None:
    share = share_of(value)
    if share is not None:
        percent = round(share * 100, 6)
        return translated("a share of all steps", lr_warmup=percent, lr_warmup_steps=None)
    if as_number(value) == 0:
        return translated("no warm-up", lr_warmup=0.0, lr_warmup_steps=None)
    return None


def _epochs(value: Any, entries: Entries) -> Outcome | None:
    """It decides the length there, whatever the steps."""
    if not as_number(value):
        return None
    count = fitted(declarations()["epoch"], value)
    return translated("the length", epoch=count, max_train_epochs=None, max_train_steps=None)


def _steps(value: Any, entries: Entries) -> Outcome | None:
    if as_number(entries.get("max_train_epochs")):
        return no_effect("max_train_epochs is there and counts more")
    return None


def _decay(value: Any, entries: Entries) -> Outcome | None:
    share = share_of(value)
    return None if share is None else take("lr_decay_steps", share)


def _first_rate(value: Any, entries: Entries) -> Outcome | None:
    """The reference uses the first rate for every text encoder."""
    if str(entries.get("network_train_unet_only", "")).lower() in ("true", "1"):
        return no_effect("network_train_unet_only is there")
    rates = value.split(",") if isinstance(value, str) and "," in value else value
    if not isinstance(rates, list):
        return None
    if len(rates) == 1 or len({as_number(rate) for rate in rates}) == 1:
        return take("text_encoder_lr", rates[0])
    if len(rates) == 0:
        return take("text_encoder_lr", None)
    return take("text_encoder_lr", rates[0], told="sd-scripts uses only the first")


def _noise_offset(value: Any, entries: Entries) -> Outcome | None:
    if as_number(value) and as_number(entries.get("multires_noise_iterations")):
        return refused(
            "sd-scripts adds it to multires noise; here only one of them counts, see "
            "noise_offset_type", noise_offset=value,
        )  # fmt: skip
    return None


def multires(value: Any, entries: Entries) -> Outcome | None:
    """Multires noise is on there where it is given."""
    if not as_number(value) or "noise_offset_type" in entries:
        return None
    number = int(as_number(value) or 0)
    return translated(
        "on by being there", multires_noise_iterations=number, noise_offset_type="Multires"
    )
