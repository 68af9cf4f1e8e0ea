"""The menu of optimizers, without torch; `kit.catalog` passes it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Optimizer:
    """An optimizer, how its class is called, and what holds for it."""

    code: str
    needs: str = ""  # the package to install
    fallback: str = ""  # the row that takes over where this one cannot run
    advised_lr: float | None = None  # None: it chooses its own
    takes: str = ""  # its arguments at its own defaults, written as in optimizer_args
    unused: str = ""  # arguments that its class has and does not use, as in takes
    defaults: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    renamed: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    # "rate": chooses its own; "schedule": averages instead, needs no schedule
    controls_lr: str = ""
    while_on: str = ""  # the argument that must be on for that
    adapts: bool = False  # multiplies the rate with a step size d that it estimates
    one_rate: bool = False  # all parts learn at the same rate
    note: str = ""  # a sentence that the plan tells
    # Arguments that do something else than their name says where they are on, with the sentence.
    misleading: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    # Names of the values that it keeps for each number, where it moves each number by itself
    # and asks for no sum over a weight.
    elementwise: str = ""

    def controls_lr_with(self, arguments: Mapping[str, Any]) -> str:
        """What it takes over with these arguments: "rate", "schedule" or nothing."""
        return self.controls_lr if not self.while_on or arguments.get(self.while_on, True) else ""


_BITSANDBYTES, _EXTRA, _PLUS = "bitsandbytes", "pytorch-optimizer", "prodigy-plus-schedule-free"
_ADAM = "betas=0.9,0.999 eps=1e-8 weight_decay=0.01"
_AMSGRAD = "amsgrad=False"
_ADEMAMIX = (
    "betas=0.9,0.999,0.9999 alpha=5.0 t_alpha=None t_beta3=None eps=1e-8 weight_decay=0.01 "
    "min_8bit_size=4096"
)
_LION = "betas=0.9,0.99 weight_decay=0"
_D = "d0=1e-6 growth_rate=inf"
_ADAN = f"betas=0.98,0.92,0.99 eps=1e-8 weight_decay=0.02 no_prox=False {_D}"
_PREPRINT = f"betas=0.9,0.999 eps=1e-8 weight_decay=0 decouple=False {_D}"


def _bits(name: str, fallback: str, advised_lr: float, takes: str, **more: Any) -> Optimizer:
    """A class of bitsandbytes."""
    return Optimizer(
        f"bitsandbytes.optim:{name}", _BITSANDBYTES, fallback, advised_lr, takes, **more
    )


_OVERSHOOTS = (
    "the step size that this optimizer finds may overshoot in the first steps and spoil the LoRA; "
    "growth_rate=1.02 in optimizer_args lets it grow slowly"
)


# What the same arguments are called in pytorch-optimizer, whose classes these rows once were.
_EARLIER_NAMES = {"weight_decouple": "decouple", "bias_correction": "use_bias_correction"}


def _adapting(name: str, takes: str, note: str = "") -> Optimizer:
    """A class that estimates its step size (D-Adaptation)."""
    renamed = {old: new for old, new in _EARLIER_NAMES.items() if f"{new}=" in takes}
    return Optimizer(
        f"kit.optim.dadapt:{name}", "", "", 1.0, takes, renamed=MappingProxyType(renamed),
        adapts=True, one_rate=True, note=note,
    )  # fmt: skip


def _schedule_free(name: str, advised_lr: float, takes: str) -> Optimizer:
    takes += " weight_decay=0 r=0.0 weight_lr_power=2.0"
    return Optimizer(
        f"schedulefree:{name}", "schedulefree", "", advised_lr, takes, controls_lr="schedule",
        elementwise="z exp_avg_sq",
    )  # fmt: skip


OPTIMIZERS: dict[str, Optimizer] = {
    "AdamW": Optimizer(
        "torch.optim:AdamW", advised_lr=1e-4, takes=f"{_ADAM} {_AMSGRAD}",
        elementwise="exp_avg exp_avg_sq max_exp_avg_sq",
    ),
    "AdamWScheduleFree": _schedule_free(
        "AdamWScheduleFree", 5e-4, "betas=0.9,0.999 eps=1e-8 warmup_steps=0"
    ),
    "AdamW8bit": _bits(
        "AdamW8bit", "AdamW", 1e-4, f"{_ADAM} min_8bit_size=4096", unused=_AMSGRAD,
        elementwise="state1 state2",
    ),
    "Adafactor": Optimizer(
        "transformers.optimization:Adafactor",
        takes="relative_step=True scale_parameter=True warmup_init=False eps=1e-30,0.001 "
        "clip_threshold=1.0 decay_rate=-0.8 beta1=None weight_decay=0.0",
        defaults=MappingProxyType({"relative_step": True}),
        controls_lr="rate",
        while_on="relative_step",
    ),
    "bitsandbytes.optim.AdEMAMix8bit": _bits("AdEMAMix8bit", "AdamW", 1e-4, _ADEMAMIX),
    "bitsandbytes.optim.PagedAdEMAMix8bit": _bits(
        "PagedAdEMAMix8bit", "bitsandbytes.optim.AdEMAMix8bit", 1e-4, _ADEMAMIX
    ),
    "DAdaptation": _adapting("DAdaptAdamPreprint", _PREPRINT, _OVERSHOOTS),
    "DAdaptAdaGrad": _adapting("DAdaptAdaGrad", f"momentum=0 eps=1e-6 weight_decay=0 {_D}"),
    "DAdaptAdam": _adapting("DAdaptAdam", f"{_PREPRINT} use_bias_correction=False", _OVERSHOOTS),
    "DAdaptAdan": _adapting("DAdaptAdan", _ADAN),
    "DAdaptAdanIP": _adapting("DAdaptAdanIP", _ADAN),
    "DAdaptAdamPreprint": _adapting("DAdaptAdamPreprint", _PREPRINT, _OVERSHOOTS),
    "DAdaptLion": _adapting(
        "DAdaptLion", "betas=0.9,0.99 weight_decay=0 decouple=True d0=1e-6"
    ),
    "DAdaptSGD": _adapting("DAdaptSGD", f"momentum=0.0 weight_decay=0 {_D}"),
    "Lion": _bits("Lion", "AdamW", 2e-5, _LION, elementwise="state1"),
    "Lion8bit": _bits(
        "Lion8bit", "Lion", 2e-5, f"{_LION} min_8bit_size=4096", elementwise="state1"
    ),
    "PagedAdamW8bit": _bits(
        "PagedAdamW8bit", "AdamW8bit", 1e-4, f"{_ADAM} min_8bit_size=4096", unused=_AMSGRAD
    ),
    "PagedAdamW32bit": _bits(
        "PagedAdamW32bit", "AdamW", 1e-4, _ADAM, unused=f"{_AMSGRAD} min_8bit_size=4096"
    ),
    "PagedLion8bit": _bits("PagedLion8bit", "Lion8bit", 2e-5, f"{_LION} min_8bit_size=4096"),
    "Prodigy": Optimizer(
        "prodigyopt:Prodigy", "prodigyopt", "", 1.0,
        "betas=0.9,0.999 beta3=None eps=1e-8 weight_decay=0 decouple=True "
        "use_bias_correction=False safeguard_warmup=False d0=1e-6 d_coef=1.0 growth_rate=inf "
        "slice_p=1",
        adapts=True, one_rate=True,
    ),
    "prodigyplus.ProdigyPlusScheduleFree": Optimizer(
        "prodigyplus:ProdigyPlusScheduleFree", _PLUS, "", 1.0,
        "betas=0.9,0.99 beta3=None weight_decay=0.0 weight_decay_by_lr=True d0=1e-6 d_coef=1.0 "
        "d_limiter=True prodigy_steps=0 schedulefree_c=0 eps=1e-8 split_groups=True "
        "split_groups_mean=False factored=True factored_fp32=True use_bias_correction=False "
        "use_stableadamw=True use_schedulefree=True use_speed=False use_cautious=False "
        "use_grams=False use_adopt=False use_orthograd=False use_focus=False",
        controls_lr="schedule", while_on="use_schedulefree", adapts=True,
    ),
    "pytorch_optimizer.CAME": Optimizer(
        "pytorch_optimizer:CAME", _EXTRA, "", 1e-4,
        "betas=0.9,0.999,0.9999 weight_decay=0.0 weight_decouple=True fixed_decay=False "
        "clip_threshold=1.0 ams_bound=False eps1=1e-30 eps2=1e-16",
        misleading=MappingProxyType(
            {
                "ams_bound": "ams_bound takes the root of the squares twice in pytorch-optimizer: "
                "weights move less, vectors such as those of train_norm hardly at all; leave it out"
            }
        ),
    ),
    "RAdamScheduleFree": _schedule_free(
        "RAdamScheduleFree", 5e-4, "betas=0.9,0.999 eps=1e-8 silent_sgd_phase=True"
    ),
    "SGDNesterov": Optimizer(
        "torch.optim:SGD", advised_lr=0.1,
        takes="momentum=0.9 nesterov=True dampening=0 weight_decay=0",
        defaults=MappingProxyType({"nesterov": True, "momentum": 0.9}),
        elementwise="momentum_buffer",
    ),
    "SGDNesterov8bit": _bits(
        "SGD8bit", "SGDNesterov", 0.1,
        "momentum=0.9 nesterov=True weight_decay=0 min_8bit_size=4096", unused="dampening=0",
        defaults=MappingProxyType({"nesterov": True, "momentum": 0.9}),
        note="SGDNesterov8bit learns with plain momentum: bitsandbytes accepts nesterov and "
        "does not use it",
    ),
    "SGDScheduleFree": _schedule_free("SGDScheduleFree", 1.0, "momentum=0.9 warmup_steps=0"),
}  # fmt: skip
