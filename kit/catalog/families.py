"""Base-model families: their size, their names in metadata, their U-Net's blocks."""

from __future__ import annotations

from dataclasses import dataclass


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
