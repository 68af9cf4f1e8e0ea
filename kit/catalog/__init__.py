"""The menus: optimizers, schedules, LoRA types, samplers. Rows of data, without torch.

A row says where the code is, what it needs, and which settings it uses; so `if name == ...` stands
nowhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kit.catalog import readers
from kit.catalog.base_models import BASE_MODELS as BASE_MODELS
from kit.catalog.base_models import base_model as base_model
from kit.catalog.optimizers import OPTIMIZERS as OPTIMIZERS
from kit.catalog.optimizers import Optimizer as Optimizer
from kit.catalog.readers import MODIFIERS, ReadBy
from kit.errors import MissingPackage


@dataclass(frozen=True)
class BlockLayout:
    """How many U-Net blocks a family has, as the reference numbers them."""

    before: int
    down: int
    mid: int
    up: int
    after: int

    @property
    def sections(self) -> tuple[int, int, int]:
        """Down, middle and up."""
        return self.down, self.mid, self.up

    @property
    def count(self) -> int:
        """All blocks."""
        return self.before + sum(self.sections) + self.after


@dataclass(frozen=True)
class FamilyRow:
    """A base-model family."""

    label: str
    size_multiple: int  # bucket sides must be a multiple of it
    native_size: int  # the side that the family was trained at
    base_version: str  # ss_base_model_version
    architecture: str  # modelspec.architecture, without /lora
    implementation: str  # modelspec.implementation
    half_vae_overflows: bool = False  # its own VAE gives infinities in fp16
    blocks: BlockLayout = BlockLayout(0, 12, 1, 12, 0)


@dataclass(frozen=True)
class LrSchedule:
    """A learning-rate schedule and the settings that it reads."""

    code: str
    warms_up: bool = True
    own: bool = False  # the optimizer's own, for those that choose their rate
    uses: tuple[str, ...] = ()
    least: float = 0.0  # the share it ends at where lr_scheduler_min_lr_ratio is blank
    warms_up_from_least: bool = False  # the warm-up starts at that share, not at 0


@dataclass(frozen=True)
class LoraType:
    """A LoRA type and the settings that it reads."""

    code: str
    network_module: str  # ss_network_module
    adapts_convolutions: bool
    uses: tuple[str, ...]
    shapes: str = "kit.catalog.lora_shapes:lora"  # which tensors it keeps beside a layer
    needs_even_blocks: bool = False  # its rank is the side of blocks that not every layer has
    read_by: ReadBy = readers.EVERYWHERE  # which programs read its files

    @property
    def is_plain_lora(self) -> bool:
        """Its files hold nothing but down and up, as kohya's."""
        return self.code.endswith((":Lora", ":LoraFa", ":DyLora"))


@dataclass(frozen=True)
class BasePrecision:
    """How the frozen base's layers are kept."""

    code: str  # blank: as they are computed with
    setting: str  # what asks for it, for messages
    costs: str = ""  # what a person should know before
    needs: str = ""
    convolutions: str = ""  # other code for them


@dataclass(frozen=True)
class Compiler:
    """A backend of torch.compile."""

    has_modes: bool = False
    gone: bool = False  # the GUI still lists it, torch has it no longer


@dataclass(frozen=True)
class Sampler:
    """A sampler of diffusers, with what its constructor is told."""

    code: str
    options: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Logger:
    """Where a run's curves go: its label, its settings, and how they are looked at."""

    label: str
    code: str
    needs: str
    uses: tuple[str, ...]
    options: tuple[str, ...]  # what its table in log_tracker_config may hold
    shown: str  # how to look at what it has written
    in_folder: bool = False  # it writes below logging_dir, and is the choice where that is set


_SGM = "https://github.com/Stability-AI/generative-models"

FAMILIES: dict[str, FamilyRow] = {
    "sd1": FamilyRow(
        "Stable Diffusion 1.x", 64, 512,
        "sd_v1", "stable-diffusion-v1", "diffusers",
    ),
    "sd2": FamilyRow(
        "Stable Diffusion 2.x", 64, 512,
        "sd_v2", "stable-diffusion-v2-512", "diffusers",
    ),
    "sdxl": FamilyRow(
        "Stable Diffusion XL", 32, 1024,
        "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", _SGM,
        half_vae_overflows=True, blocks=BlockLayout(1, 9, 3, 9, 1),
    ),
}  # fmt: skip

QUICK_PICKS: dict[str, str] = {row.name: row.family for row in BASE_MODELS}

SCHEDULES: dict[str, LrSchedule] = {
    "constant": LrSchedule("kit.catalog.lr_schedules:constant", warms_up=False),
    "constant_with_warmup": LrSchedule("kit.catalog.lr_schedules:constant"),
    "linear": LrSchedule("kit.catalog.lr_schedules:linear"),
    "cosine": LrSchedule("kit.catalog.lr_schedules:cosine"),
    "cosine_with_restarts": LrSchedule(
        "kit.catalog.lr_schedules:cosine_with_restarts", uses=("lr_scheduler_num_cycles",)
    ),
    "polynomial": LrSchedule(
        "kit.catalog.lr_schedules:polynomial",
        uses=("lr_scheduler_power", "lr_scheduler_num_cycles"),
    ),
    "cosine_with_min_lr": LrSchedule(
        "kit.catalog.lr_schedules:cosine_with_min_lr",
        uses=("lr_scheduler_min_lr_ratio", "lr_scheduler_num_cycles"),
        least=0.1,
    ),
    "inverse_sqrt": LrSchedule(
        "kit.catalog.lr_schedules:inverse_sqrt", uses=("lr_scheduler_timescale",)
    ),
    "warmup_stable_decay": LrSchedule(
        "kit.catalog.lr_schedules:warmup_stable_decay",
        uses=("lr_decay_steps", "lr_scheduler_min_lr_ratio", "lr_scheduler_num_cycles"),
        warms_up_from_least=True,
    ),
    "rex": LrSchedule("kit.catalog.lr_schedules:rex", uses=("lr_scheduler_min_lr_ratio",)),
    "piecewise_constant": LrSchedule(
        "kit.catalog.lr_schedules:piecewise_constant", warms_up=False, uses=("lr_scheduler_args",)
    ),
    "adafactor": LrSchedule("kit.catalog.lr_schedules:constant", warms_up=False, own=True),
}

_FILE_SETTINGS = ("network_weights", "dim_from_weights")
_DROPOUTS = ("network_dropout", "rank_dropout", "module_dropout")
# LoRA+ needs two factors, of which one starts as zeros.
_TWO_FACTORS = (
    "loraplus_lr_ratio",
    "loraplus_unet_lr_ratio",
    "loraplus_text_encoder_lr_ratio",
)
_RANK = ("network_dim", "network_alpha", "rs_lora", *_TWO_FACTORS)
_CONVOLUTIONS = ("conv_dim", "conv_alpha")
_LORA_SETTINGS = (*_RANK, *_DROPOUTS, "scale_weight_norms", *_FILE_SETTINGS)
_LYCORIS_SETTINGS = (*_DROPOUTS, "rank_dropout_scale", *_FILE_SETTINGS)
_FACTORED = (*_RANK, *_CONVOLUTIONS, *_LYCORIS_SETTINGS, "scale_weight_norms")
_ROTATION = ("network_dim", "conv_dim", *_LYCORIS_SETTINGS, "constraint", "rescaled")
_PRODUCT = ("use_tucker", "use_scalar", "dora_wd", "wd_on_output")


def _lycoris(code: str, shapes: str, *uses: str, **traits: Any) -> LoraType:
    shapes = f"kit.catalog.lora_shapes:{shapes}"
    uses = (*uses, "LyCORIS_preset")
    return LoraType(f"kit.adapters.{code}", "lycoris.kohya", True, uses, shapes, **traits)


LORA_TYPES: dict[str, LoraType] = {
    "Standard": LoraType("kit.adapters.lora:Lora", "networks.lora", False, _LORA_SETTINGS),
    "Kohya LoCon": LoraType(
        "kit.adapters.lora:Lora", "networks.lora", True, (*_LORA_SETTINGS, *_CONVOLUTIONS)
    ),
    "Kohya DyLoRA": LoraType(
        "kit.adapters.dylora:DyLora",
        "networks.dylora",
        True,
        (*_LORA_SETTINGS, *_CONVOLUTIONS, "unit"),
    ),
    "Kohya LoHa": LoraType(
        "kit.adapters.loha:Loha",
        "networks.loha",
        True,
        (*_FACTORED, "use_tucker"),
        "kit.catalog.lora_shapes:loha",
        read_by=readers.LYCORIS,
    ),
    "Kohya LoKr": LoraType(
        "kit.adapters.lokr:Lokr",
        "networks.lokr",
        True,
        (*_FACTORED, "use_tucker", "factor"),
        "kit.catalog.lora_shapes:lokr",
        read_by=readers.LYCORIS,
    ),
    "LoRA-FA": LoraType("kit.adapters.lora:LoraFa", "networks.lora_fa", False, _LORA_SETTINGS),
    "LyCORIS/LoCon": _lycoris(
        "locon:Locon", "lora", *_FACTORED, *_PRODUCT, "bypass_mode", "train_norm"
    ),
    "LyCORIS/LoHa": _lycoris(
        "loha:Loha", "loha", *_FACTORED, *_PRODUCT, "train_norm", read_by=readers.LYCORIS
    ),
    "LyCORIS/LoKr": _lycoris(
        "lokr:Lokr",
        "lokr",
        *_FACTORED,
        *_PRODUCT,
        "factor",
        "decompose_both",
        "train_norm",
        read_by=readers.LYCORIS,
    ),
    "LyCORIS/iA3": _lycoris(
        "direct:Ia3", "ia3", *_LYCORIS_SETTINGS, "train_on_input", read_by=readers.IA3
    ),
    "LyCORIS/DyLoRA": _lycoris(
        "dylora:DyLora", "lora", *_LORA_SETTINGS, *_CONVOLUTIONS, "unit", "train_norm"
    ),
    "LyCORIS/GLoRA": _lycoris(
        "glora:Glora", "glora", *_FACTORED, "train_norm", read_by=readers.GLORA
    ),
    "LyCORIS/Diag-OFT": _lycoris(
        "oft:DiagOft", "oft", *_ROTATION, "train_norm", read_by=readers.ROTATION
    ),
    "LyCORIS/BOFT": _lycoris(
        "oft:Boft",
        "boft",
        *_ROTATION,
        "train_norm",
        needs_even_blocks=True,
        read_by=readers.ROTATION,
    ),
    "LyCORIS/Native Fine-Tuning": _lycoris(
        "direct:Full", "full", *_LYCORIS_SETTINGS, "train_norm", read_by=readers.FULL
    ),
}


def read_by(values: Mapping[str, Any]) -> ReadBy:
    """Which programs will read a LoRA that is trained with these settings, by name."""
    name = values["LoRA_type"]
    row = LORA_TYPES[name]
    return row.read_by.with_(
        *(
            each.read_by
            for each in MODIFIERS
            if each.setting in row.uses
            and values.get(each.setting)
            and (not each.kinds or name in each.kinds)
            and (not each.beside or values.get(each.beside))
        )
    )


def _sampler(name: str, **options: Any) -> Sampler:
    return Sampler(f"diffusers:{name}", MappingProxyType(options))


SAMPLERS: dict[str, Sampler] = {
    "ddim": _sampler("DDIMScheduler", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    "pndm": _sampler("PNDMScheduler", skip_prk_steps=True, steps_offset=1),
    "lms": _sampler("LMSDiscreteScheduler"),
    "euler": _sampler("EulerDiscreteScheduler", steps_offset=1),
    "euler_a": _sampler("EulerAncestralDiscreteScheduler", steps_offset=1),
    "heun": _sampler("HeunDiscreteScheduler", steps_offset=1),
    "dpm_2": _sampler("KDPM2DiscreteScheduler", steps_offset=1),
    "dpm_2_a": _sampler("KDPM2AncestralDiscreteScheduler", steps_offset=1),
    "dpmsolver": _sampler("DPMSolverMultistepScheduler", algorithm_type="dpmsolver",
                          final_sigmas_type="sigma_min"),
    "dpmsolver++": _sampler("DPMSolverMultistepScheduler", algorithm_type="dpmsolver++"),
    "dpmsingle": _sampler("DPMSolverSinglestepScheduler", lower_order_final=True),
}  # fmt: skip
SAMPLERS |= {
    f"k_{name}": SAMPLERS[name] for name in ("lms", "euler", "euler_a", "dpm_2", "dpm_2_a")
}

# The errors are those of the loss of the embedded base, which is small; see kit/DECISIONS.md.
BASE_PRECISIONS: dict[str, BasePrecision] = {
    "as_mixed_precision": BasePrecision("", "base_precision = as_mixed_precision"),
    "int8": BasePrecision(
        "kit.families.quantized:Int8", "base_precision = int8",
        "the base's layers take half of 16 bits; an error of about 0.3 %, as bf16's own, and "
        "slower steps",
    ),
    "fp8": BasePrecision(
        "kit.families.quantized:Fp8", "fp8_base",
        "the base's layers take half of 16 bits; an error of about 0.9 %, three times that of "
        "base_precision = int8, and slower steps",
    ),
    "nf4": BasePrecision(
        "kit.families.quantized:Nf4", "base_precision = nf4",
        "the base's linear layers take 4.5 of 16 bits, its convolutions 8; an error of about 4 %, "
        "which the LoRA learns to make up for, so that it fits the exact base less well; slower "
        "steps",
        needs="bitsandbytes",
        convolutions="kit.families.quantized:Int8",  # in 4 bits they alone cost 11 %
    ),
}  # fmt: skip

_LOG_SETTINGS = ("log_tracker_name", "log_tracker_config", "log_config")

LOGGERS: dict[str, Logger] = {
    "tensorboard": Logger(
        "TensorBoard", "kit.sinks.tensorboard_log:TensorBoard", "tensorboard",
        uses=("logging_dir", "log_prefix", *_LOG_SETTINGS),
        options=("filename_suffix",),
        shown="tensorboard --logdir {logging_dir}, or in a notebook %load_ext tensorboard and "
        "%tensorboard --logdir {logging_dir}",
        in_folder=True,
    ),
    "wandb": Logger(
        "Weights & Biases", "kit.sinks.wandb_log:WeightsAndBiases", "wandb",
        uses=("wandb_run_name", *_LOG_SETTINGS),
        options=("entity", "group", "job_type", "mode", "name", "notes", "project", "tags"),
        shown="https://wandb.ai",
    ),
}  # fmt: skip
ALL_LOGGERS = "all"
HUB = "kit.sinks.hub_upload:Uploader"

COMPILERS: dict[str, Compiler] = {
    "no": Compiler(),
    "eager": Compiler(),
    "aot_eager": Compiler(),
    "inductor": Compiler(has_modes=True),
    "cudagraphs": Compiler(),
    "onnxrt": Compiler(),
    "tensorrt": Compiler(),
    "ipex": Compiler(),
    "tvm": Compiler(),
    "aot_ts_nvfuser": Compiler(gone=True),
    "nvprims_nvfuser": Compiler(gone=True),
    "ofi": Compiler(gone=True),
    "fx2trt": Compiler(gone=True),
}

CAPTION_EXTENSIONS = (".txt", ".caption", ".cap")


def load(code: str, needs: str = "") -> Any:
    """Import what a row names as "module:name".

    Raises: MissingPackage where a package that it needs is not installed.
    """
    module, _, name = code.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = needs or (error.name or module).partition(".")[0]
        if package == "kit":
            raise  # a mistake of ours: nothing that could be installed would cure it
        raise MissingPackage(
            f"The package {package} is not installed or does not load: {error}",
            do=f"Install it with: pip install {package}",
        ) from error
