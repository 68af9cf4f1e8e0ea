"""What a training needs, reckoned from its work: memory, and time beside another training's.

Memory is what the weights take, and what backward remembers for each pixel of a batch. The latter
was fitted to measured runs; where a run of the same base was measured, only the difference to it is
reckoned. Work is that of `kit.runs.measured.work_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kit.runs.measured import Measured, Work

# Millions of weights in U-Net, text encoders and VAE.
WEIGHTS = {"sd1": (859.5, 123.1, 83.7), "sd2": (865.9, 340.4, 83.7), "sdxl": (2567.5, 817.8, 83.7)}
KEPT = {"int8": 1.02, "fp8": 1.02, "nf4": 0.57}  # bytes of a weight and its share of the scales
# Millions of weights that are whole at once where the base is sharded: the largest blocks, a
# ResNet of 2560 channels, in the buffers of two gathers. Reckoned, not yet measured.
GATHERED = 4 * 49.0
PER_LORA_WEIGHT = 16  # bytes: weight, gradient and an optimizer's two averages
# MB beside all that: kernels' workspaces; on a CPU Python, torch and the allocator's slack.
BESIDE = {"gpu": 150.0, "cpu": 700.0}
# MB of the machine's memory beside a GPU: Python, torch and CUDA. Not yet measured.
HOST_BESIDE = 3000.0
RECOMPUTING = {"gpu": 1.5, "cpu": 4 / 3}  # how much longer a step takes with checkpointing
# What may differ from a measured run for its time to be scaled.
SCALED = {
    "gpu": ("gradient_accumulation_steps", "gradient_checkpointing"),
    "cpu": (
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "train_batch_size",
        "resolution",
    ),
}
FIXED_PIXELS = 40_000  # of a CPU's step: what does not grow with the batch takes as long as these


@dataclass(frozen=True)
class PerPixel:
    """Bytes that backward remembers of a pixel, without and with checkpointing."""

    plain: float
    checkpointed: float


# GPU: an H100 in bf16, measured.json; SD 1.5 with checkpointing is not yet measured there, and as
# much less as SDXL is. CPU: fp32, full-size random weights, 128 and 256 px.
PER_PIXEL: Mapping[str, Mapping[str, PerPixel]] = {
    "gpu": {
        "sd1": PerPixel(4824, 458),
        "sd2": PerPixel(4824, 458),
        "sdxl": PerPixel(8091, 768),
    },
    "cpu": {"sd1": PerPixel(12_650, 5_000)},
}


def kind_of(device: str) -> str:
    """`cpu` or `gpu`, from a measured row's device."""
    return "cpu" if device.startswith("CPU") else "gpu"


def megabytes(work: Work, kind: str, *, lora_weights: int) -> float | None:
    """The most memory that a training of that work holds; None where nothing was measured alike.

    kind: "gpu", where the card's memory is told, or "cpu", where the machine's is.
    """
    family, precision = work["family"], work["mixed_precision"]
    per_pixel = PER_PIXEL[kind].get(family)
    is_measured = (precision == "no") == (kind == "cpu")  # 16 bits on GPUs, 32 on CPUs
    if per_pixel is None or work.get("keeps_attention") or not is_measured:
        return None
    unet, text, vae = WEIGHTS[family]
    size = 4 if precision == "no" else 2
    rests = kind == "cpu"  # what leaves a GPU lies here, where all of it lies anyway
    held: float = unet * KEPT.get(work["base_precision"], size)
    if work.get("shards", 1) > 1 and kind == "gpu":  # processes on a CPU share one machine's memory
        held = held / work["shards"] + GATHERED * size
    if rests or not work["caches_captions"]:
        held += text * (4 if work["caches_captions"] else size)
    if rests or not work["caches_latents"]:
        held += vae * size
    width, height = map(int, work["resolution"].split("x"))
    each = per_pixel.checkpointed if work["gradient_checkpointing"] else per_pixel.plain
    pixels: float = work["train_batch_size"] * width * height * each / 1e6
    return held + pixels + lora_weights * PER_LORA_WEIGHT / 1e6 + BESIDE[kind]


def host_megabytes(work: Work, cached: float) -> float:
    """The machine's memory that a GPU's training takes: what rests there, and caches.

    cached: MB of caches in memory. Parts on their way to the GPU are mapped, and do not count.
    """
    _, text, vae = WEIGHTS[work["family"]]
    rests = text * 4 if work["caches_captions"] else 0.0
    rests += vae * (4 if work["mixed_precision"] == "no" else 2) if work["caches_latents"] else 0.0
    return HOST_BESIDE + rests + cached


def beside(row: Measured, work: Work, *, lora_weights: int) -> float | None:
    """The same from a run that was measured: its memory and the difference."""
    kind = kind_of(row.device)
    wanted = megabytes(work, kind, lora_weights=lora_weights)
    share = row.work.get("network_dim", 0) / max(1, work.get("network_dim", 1))
    reckoned = megabytes({**work, **row.work}, kind, lora_weights=int(lora_weights * share))
    if wanted is None or reckoned is None or not row.megabytes:
        return wanted
    return row.megabytes + wanted - reckoned


def seconds_share(work: Work, other: Work, kind: str) -> float:
    """How long a step of `work` takes, as a share of a step of `other`.

    On a GPU batches of one and of four were measured to take as long; on a CPU time grows with the
    pixels (four sizes of SD 1.5, within 17 %).
    """
    return _cost(work, kind) / _cost(other, kind)


def _cost(work: Work, kind: str) -> float:
    width, height = map(int, work["resolution"].split("x"))
    batch = FIXED_PIXELS + work["train_batch_size"] * width * height if kind == "cpu" else 1.0
    slower = RECOMPUTING[kind] if work["gradient_checkpointing"] else 1.0
    return float(work["gradient_accumulation_steps"] * batch * slower)
