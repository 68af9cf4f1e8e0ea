"""What the kohya_ss GUI and sd-scripts know: names, types and defaults, as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from kit.reading.texts import from_json


@dataclass(frozen=True)
class Foreign:
    """A field of the GUI, or an argument of the trainer."""

    name: str
    type: str  # "bool", "int", "float", "str"; the trainer's also "flag", "list[str]", ...
    default: Any
    families: tuple[str, ...]
    is_ours: bool  # it means something for SD 1.x, 2.x or XL
    choices: tuple[Any, ...] = ()  # where nothing else may be entered

    @property
    def is_list(self) -> bool:
        """It takes several values."""
        return self.type.startswith("list")


def gui_fields() -> MappingProxyType[str, Foreign]:
    """The fields that the GUI saves in its JSON, by key."""
    return _known()[0]


def trainer_args() -> MappingProxyType[str, Foreign]:
    """The arguments of train_network.py and sdxl_train_network.py, by name."""
    return _known()[1]


def other_families() -> MappingProxyType[str, str]:
    """Arguments and network arguments of other families' trainers, with their families."""
    return _known()[2]


def network_args() -> MappingProxyType[str, str]:
    """What may stand in network_args, with the GUI's key of it."""
    return _known()[3]


_Tables = tuple[
    MappingProxyType[str, Foreign],
    MappingProxyType[str, Foreign],
    MappingProxyType[str, str],
    MappingProxyType[str, str],
]


@cache
def _known() -> _Tables:
    text = resources.files("kit.exchange").joinpath("known.json").read_text("utf-8")
    tables = from_json(text, "known.json")
    return (
        MappingProxyType({row[0]: _foreign(row) for row in tables["gui"]}),
        MappingProxyType({row[0]: _foreign(row) for row in tables["trainer"]}),
        MappingProxyType(dict(tables["other_families"])),
        MappingProxyType(dict(tables["network_args"])),
    )


def _foreign(row: list[Any]) -> Foreign:
    name, kind, default, families, *choices = row
    is_ours = not families.startswith("!")
    return Foreign(
        name,
        kind,
        default,
        tuple(families.lstrip("!").split()),
        is_ours,
        tuple(choices[0]) if choices else (),
    )


_GOES_ON = "a run's state is always kept beside the LoRA; started again, it goes on by itself"
_ATTENTION = "attention is always PyTorch's own, which picks the fastest way"
_CONSOLE = "says how the other program talks, not how it trains"
_OF_THE_GUI = "the GUI's own bookkeeping"

# What will never be a setting, with the reason. A declared setting of that name comes first.
_NEVER: tuple[tuple[str, str], ...] = (
    (
        "several processes exchange the LoRA's gradients themselves here, in one piece",
        "ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph",
    ),
    (
        "no DeepSpeed here: the weights that learn are few, so there is little to divide",
        """deepspeed zero_stage offload_optimizer_device offload_optimizer_nvme_path
        offload_param_device offload_param_nvme_path zero3_init_flag zero3_save_16bit_model
        fp16_master_weights_and_gradients""",
    ),
    (
        "a run's state is always kept beside the LoRA; started again, it goes on by itself",
        "initial_epoch initial_step skip_until_initial_step",
    ),
    (
        "says how the other program talks, not how it trains",
        "console_log_level console_log_file console_log_simple output_config debug_dataset",
    ),
    ("the GUI's own bookkeeping", "save_as_bool model_list"),
    ("the GUI does not use it either", "lowvram"),
    ("it left the GUI's LoRA tab; captions are always padded", "no_token_padding"),
    ("captions and sizes are always read anew", "cache_info"),
    ("it does nothing in sd-scripts' LoRA training either", "fused_backward_pass"),
    ("the file's arguments are read, too", "config_file"),
)
REASONS: MappingProxyType[str, str] = MappingProxyType(
    {name: reason for reason, names in _NEVER for name in names.split()}
)
