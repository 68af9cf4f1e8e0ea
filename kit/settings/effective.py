"""Effective settings: what a run really uses where several settings decide together.

Each answer takes the sections that it reads. Sentences about them are in `kit.settings.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import catalog
from kit.catalog import lr_schedules
from kit.errors import Unreadable
from kit.processes import here
from kit.reading.fields import kind_of
from kit.reading.paths import path_of
from kit.reading.texts import read_json, read_toml
from kit.settings.basic import Basic
from kit.settings.folders import Folders
from kit.settings.hub import Hub
from kit.settings.launch_args import parse_launch_args
from kit.settings.logs import Logs
from kit.settings.machine import Machine
from kit.settings.memory import Memory
from kit.settings.network import NetworkSettings
from kit.settings.noise import Noise
from kit.settings.optimizer_args import parse_optimizer_args
from kit.settings.rates import Rates

CACHE_FOLDER = ".kit_cache"
PROJECT = "network_train"  # as in the reference, so that curves of both stand side by side

# ------------------------------------------------------------------------------------ LoRA type


def reads(network: NetworkSettings, name: str) -> bool:
    """The LoRA type reads this setting."""
    return name in lora_type(network).uses


def unread_by(lora_type: str) -> set[str]:
    """Settings that other LoRA types read and this one does not."""
    of_some = {name for row in catalog.LORA_TYPES.values() for name in row.uses}
    return of_some - set(catalog.LORA_TYPES[lora_type].uses)


def lora_type(network: NetworkSettings) -> catalog.LoraType:
    """The LoRA type's row of the menu."""
    return catalog.LORA_TYPES[network.LoRA_type]


# --------------------------------------------------------------------------------- learning rates


def learning_rates(basic: Basic) -> tuple[float, float]:
    """The rates of (U-Net, text encoder): blank is Learning rate, 0 is frozen."""
    unet = basic.learning_rate if basic.unet_lr is None else basic.unet_lr
    text = basic.learning_rate if basic.text_encoder_lr is None else basic.text_encoder_lr
    return unet, text


def part_rates(basic: Basic, rates: Rates) -> dict[str, float]:
    """The rate of every part that a layer may belong to."""
    unet, text = learning_rates(basic)
    second = rates.learning_rate_te2
    return {"unet": unet, "te": text, "te1": text, "te2": text if second is None else second}


def encoder_learns(basic: Basic, rates: Rates) -> bool:
    """Some text encoder has a rate."""
    return any(rate > 0 for part, rate in part_rates(basic, rates).items() if part != "unet")


def plus_ratios(rates: Rates) -> dict[str, float]:
    """LoRA+'s ratio for the U-Net and the text encoders; the more special one counts."""
    both = rates.loraplus_lr_ratio or 0.0
    own = {
        "unet": rates.loraplus_unet_lr_ratio,
        "textencoder": rates.loraplus_text_encoder_lr_ratio,
    }
    return {part: both if ratio is None else ratio for part, ratio in own.items()}


# -------------------------------------------------------------------------------------- optimizer


def optimizer(basic: Basic) -> catalog.Optimizer:
    """The optimizer's row of the menu."""
    return catalog.OPTIMIZERS[basic.optimizer_type]


def optimizer_args(basic: Basic) -> dict[str, Any]:
    """The optimizer's extra arguments, read; none where they cannot be."""
    try:
        return parse_optimizer_args(basic.optimizer_args)
    except ValueError:
        return {}


def controls_lr(basic: Basic) -> str:
    """What the optimizer takes over: its "rate", the "schedule", or nothing."""
    row = optimizer(basic)
    return row.controls_lr_with({**row.defaults, **optimizer_args(basic)})


# --------------------------------------------------------------------------------------- schedule


def warms_up(basic: Basic, rates: Rates) -> bool:
    """The schedule begins with a warm-up; constant ones, foreign classes and optimizers do not."""
    if rates.lr_warmup_only_constant and basic.lr_scheduler != "constant_with_warmup":
        return False
    foreign = basic.lr_scheduler_type or controls_lr(basic)
    return catalog.SCHEDULES[basic.lr_scheduler].warms_up and not foreign


def least_share(basic: Basic) -> float:
    """The share of the rate that the schedule ends at, where it ends at one."""
    given = basic.lr_scheduler_min_lr_ratio
    return catalog.SCHEDULES[basic.lr_scheduler].least if given is None else given


def start_share(basic: Basic) -> float:
    """The share of the rate that the warm-up starts from."""
    from_least = catalog.SCHEDULES[basic.lr_scheduler].warms_up_from_least
    return least_share(basic) if from_least else 0.0


def step_rules(basic: Basic) -> tuple[tuple[float, int | None], ...]:
    """The factors of piecewise_constant; none for other schedules.

    Raises: ValueError where they are missing or cannot be read.
    """
    if basic.lr_scheduler != "piecewise_constant" or basic.lr_scheduler_type:
        return ()
    given = parse_optimizer_args(basic.lr_scheduler_args)
    if set(given) != {"step_rules"}:
        raise ValueError("piecewise_constant reads step_rules; write e.g. step_rules=1:10,0.1")
    return lr_schedules.parse_step_rules(str(given["step_rules"]))


@dataclass(frozen=True)
class OwnRates:
    """The rates that a schedule sets: one for all parts, or one per part, text encoders first."""

    name: str
    first: tuple[float, ...]
    highest: tuple[float, ...]
    last: tuple[float, ...]  # of OneCycleLR, which ends; of CyclicLR the lowest

    def __str__(self) -> str:
        """The rates in words."""
        first, highest, last = map(_listed, (self.first, self.highest, self.last))
        if self.name == "OneCycleLR":
            return f"OneCycleLR's own, from {first} up to {highest} and down to {last}"
        return f"{self.name}'s own, from {last} to {highest} and back"


def own_rates(basic: Basic) -> OwnRates | None:
    """The rates that a schedule of torch uses instead of the parts' own; None where it uses those.

    Most classes move the rate that a part has. OneCycleLR and CyclicLR put rates of their own in
    its place, the same for every part unless they are given as many as there are parts.

    Source: torch.optim.lr_scheduler, OneCycleLR (max_lr, div_factor, final_div_factor) and
    CyclicLR (base_lr, max_lr).
    """
    name, given = schedule_class(basic), schedule_args(basic)
    highest = _rates(given.get("max_lr"))
    if controls_lr(basic) or not highest:
        return None
    if name == "CyclicLR" and (lowest := _rates(given.get("base_lr"))):
        return OwnRates(name, lowest, highest, lowest)
    divisors = [given.get("div_factor", 25.0), given.get("final_div_factor", 1e4)]
    if name != "OneCycleLR" or not all(isinstance(each, int | float) and each for each in divisors):
        return None
    first = tuple(rate / divisors[0] for rate in highest)
    return OwnRates(name, first, highest, tuple(rate / divisors[1] for rate in first))


def schedule_class(basic: Basic) -> str:
    """`OneCycleLR`, with or without torch.optim.lr_scheduler before it; other classes blank."""
    module, _, name = basic.lr_scheduler_type.strip().rpartition(".")
    return name if module in ("", "torch.optim.lr_scheduler") else ""


def schedule_args(basic: Basic) -> dict[str, Any]:
    """lr_scheduler_args, read; none where they cannot be."""
    try:
        return parse_optimizer_args(basic.lr_scheduler_args)
    except ValueError:
        return {}


def cycle_steps(basic: Basic) -> int:
    """The steps of OneCycleLR as its arguments have them; 0 where that is not to be seen."""
    given = schedule_args(basic)
    if schedule_class(basic) != "OneCycleLR" or not own_rates(basic):
        return 0
    steps = given.get("total_steps")
    if steps is None and {"epochs", "steps_per_epoch"} <= set(given):
        steps = given["epochs"] * given["steps_per_epoch"]
    return steps if isinstance(steps, int) else 0


def _rates(given: Any) -> tuple[float, ...]:
    rates = tuple(given) if isinstance(given, list | tuple) else (given,)
    return rates if all(isinstance(rate, int | float) for rate in rates) else ()


def _listed(rates: tuple[float, ...]) -> str:
    return " and ".join(dict.fromkeys(f"{rate:g}" for rate in rates))


# ------------------------------------------------------------------------------------------ noise


def noise_offset(noise: Noise) -> float:
    """The noise offset that counts: 0 where the noise is of another type."""
    return noise.noise_offset if noise.noise_offset_type == "Original" else 0.0


def multires_levels(noise: Noise) -> int:
    """The levels of multires noise that count: 0 where the noise is of another type."""
    return noise.multires_noise_iterations if noise.noise_offset_type == "Multires" else 0


# ----------------------------------------------------------------------------- memory and machine


def caches_latents(memory: Memory) -> bool:
    """Latents are cached, in memory or on disk."""
    return memory.cache_latents or memory.cache_latents_to_disk


def caches_text_embeds(memory: Memory) -> bool:
    """Text-encoder outputs are cached, in memory or on disk."""
    return memory.cache_text_encoder_outputs or memory.cache_text_encoder_outputs_to_disk


def base_precision(memory: Memory) -> str:
    """The row of the catalog that says how the base is kept."""
    return "fp8" if memory.fp8_base else memory.base_precision


def full_precision(memory: Memory) -> str:
    """The mixed precision that the LoRA's own weights share; empty where they are float32."""
    return "fp16" if memory.full_fp16 else "bf16" if memory.full_bf16 else ""


def cache_folder(folders: Folders) -> Path:
    """Where a run's caches on disk lie: beside its images."""
    config = folders.dataset_config.strip()
    root = path_of(config).parent if config else path_of(folders.train_data_dir)
    return root / CACHE_FOLDER


def keeps_attention_matrices(memory: Memory) -> bool:
    """Attention is computed step by step, without a kernel that avoids its matrices."""
    return memory.cross_attention == "none" and not memory.mem_eff_attn


MOST_DIGITS = 4  # of a GPU's number


def gpu_ids(text: str) -> tuple[int, ...]:
    """The numbers of GPUs that "1,0" names; none where it is blank.

    Raises: ValueError where it names something else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and len(part) <= MOST_DIGITS for part in parts):
        raise ValueError(f"{kind_of(text)} is no list of GPU numbers")
    return tuple(int(part) for part in parts)


def trains_together(machine: Machine) -> bool:
    """Several processes are asked for, or as many as there are GPUs."""
    return machine.num_processes > 1 or machine.multi_gpu


def shards(machine: Machine) -> int:
    """Over how many processes the base model is divided; 1: it is whole on each.

    A launcher may have started them; multi_gpu alone has none until then.
    """
    return max(machine.num_processes, here().count) if machine.shard_base else 1


def launch_args(machine: Machine) -> tuple[str, ...]:
    """The extra arguments of accelerate launch, read; none where they cannot be."""
    try:
        return parse_launch_args(machine.extra_accelerate_launch_args)
    except ValueError:
        return ()


def launch_flags(machine: Machine, processes: int) -> list[str]:
    """What `accelerate launch` is told so that this many processes train; without GPUs' numbers.

    0 processes: one for every GPU, which it counts itself.
    """
    words = ["--multi_gpu", *(["--num_processes", str(processes)] if processes else [])]
    words += ["--num_machines", str(machine.num_machines)]
    if machine.main_process_port or machine.num_machines == 1:  # 0 is a free one, of one machine
        words += ["--main_process_port", str(machine.main_process_port)]
    return [*words, *launch_args(machine)]


# ---------------------------------------------------------------------------------- logs and hub


def loggers(logs: Logs) -> tuple[str, ...]:
    """The rows of the catalog that get the curves."""
    if logs.log_with == catalog.ALL_LOGGERS:
        return tuple(catalog.LOGGERS)
    if logs.log_with:
        return (logs.log_with,)
    return tuple(n for n, row in catalog.LOGGERS.items() if row.in_folder and logs.logging_dir)


def project(logs: Logs) -> str:
    """The tracker's name."""
    return logs.log_tracker_name.strip() or PROJECT


def tracker_options(logs: Logs, logger: str) -> dict[str, Any]:
    """The logger's table in log_tracker_config.

    Raises: ValueError where the file cannot be read.
    """
    return tracker_tables(logs).get(logger, {})


def tracker_tables(logs: Logs) -> dict[str, dict[str, Any]]:
    """The tables of log_tracker_config by logger.

    Raises: ValueError where the file cannot be read.
    """
    named = logs.log_tracker_config.strip()
    if not named:
        return {}
    try:
        path = path_of(named)
        tables: Any = (read_json if path.suffix.lower() == ".json" else read_toml)(path)
    except Unreadable as error:
        raise ValueError(f"{error.what} {error.why}") from error
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ValueError(f"{path} holds options outside of a table; write [wandb] above them")
    return tables


def uploads(hub: Hub) -> bool:
    """Something is sent to the Hub."""
    return bool(hub.huggingface_repo_id.strip())
