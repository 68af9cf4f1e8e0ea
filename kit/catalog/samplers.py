"""Samplers of sample pictures, by the names that sd-scripts gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Sampler:
    """A sampler of diffusers, with what its constructor is told."""

    code: str
    options: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))


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
