"""What one step does: everything that its time and its memory depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kit.settings import Settings

FAMILIES = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}  # as people call them, and as the catalog
CLAIMS: dict[str, dict[str, Any]] = {"sd21": {"v2": True}, "sdxl": {"sdxl": True}}
PRECISIONS = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}  # and mixed_precision
USUAL_RANK = 8
DEFAULT_ALPHA = 1
RATE = 1e-4


@dataclass(frozen=True)
class Work:
    """A training step on a base model of its real size with random weights.

    encodes_captions: in every step, as it must be where text encoders learn; else they are given.
    """

    family: str = "sd15"
    px: int = 512
    batch: int = 1
    precision: str = "fp32"
    rank: int = USUAL_RANK
    optimizer: str = "AdamW"
    base_precision: str = "as_mixed_precision"
    checkpointing: bool = False
    text_encoder: bool = False
    encodes_captions: bool = False
    step_engine: str = "auto"

    @property
    def encodes(self) -> bool:
        """Captions are encoded in each step."""
        return self.encodes_captions or self.text_encoder

    def __str__(self) -> str:
        """As a row of a table: what is not usual is told."""
        parts = [f"{self.family} {self.px} px b{self.batch} {self.precision}"]
        parts += [f"rank {self.rank}"] * (self.rank != USUAL_RANK)
        parts += [self.optimizer] * (self.optimizer != "AdamW")
        parts += [self.base_precision] * (self.base_precision != "as_mixed_precision")
        parts += ["checkpointing"] * self.checkpointing
        parts += ["text encoders learn"] * self.text_encoder
        parts += [self.step_engine] * (self.step_engine != "auto")
        parts += ["captions encoded"] * (self.encodes_captions and not self.text_encoder)
        return ", ".join(parts)


def usual(device: str) -> tuple[Work, ...]:
    """What is worth measuring on a device, "cuda" or "cpu", the most telling first."""
    if device != "cuda":
        return (
            Work("sd15", 128),
            Work("sd15", 256, 2),
            Work("sd15", 128, text_encoder=True),
            Work("sd15", 128, checkpointing=True),
            Work("sdxl", 128),
        )
    sdxl = Work("sdxl", 1024, precision="bf16")
    return (
        Work("sd15", 512, precision="bf16"),
        sdxl,
        Work("sd15", 512, 4, "bf16"),
        Work("sdxl", 1024, 1, "bf16", checkpointing=True),
        Work("sdxl", 1024, 4, "bf16", checkpointing=True),
        Work("sd15", 512, precision="fp16"),
        Work("sdxl", 1024, 1, "bf16", optimizer="AdamW8bit"),
        Work("sdxl", 1024, 1, "bf16", base_precision="int8", checkpointing=True),
        Work("sdxl", 1024, 1, "bf16", text_encoder=True, checkpointing=True),
    )


def settings_of(work: Work, *, steps: int = 1) -> Settings:
    """A training of that work, its base model and its pictures left blank."""
    return Settings().replace(
        **CLAIMS.get(work.family, {}),
        output_name="bench",
        resolution=f"{work.px},{work.px}",
        enable_bucket=False,
        train_batch_size=work.batch,
        max_train_steps=steps,
        seed=1,
        learning_rate=RATE,
        unet_lr=RATE,
        text_encoder_lr=RATE if work.text_encoder else 0.0,
        lr_scheduler="constant",
        lr_warmup=0,
        optimizer_type=work.optimizer,
        network_dim=work.rank,
        network_alpha=DEFAULT_ALPHA,
        mixed_precision=PRECISIONS[work.precision],
        base_precision=work.base_precision,
        gradient_checkpointing=work.checkpointing,
        step_engine=work.step_engine,
        cache_latents=True,
        cache_text_encoder_outputs=not work.encodes,
        save_every_n_epochs=None,
    )
