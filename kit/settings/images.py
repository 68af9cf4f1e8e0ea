"""How images are sorted into buckets, cut and captioned."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from kit.reading.fields import kind_of
from kit.settings.setting import Section, setting


class Images(Section, box="Parameters / Basic"):
    """How images are sorted into buckets, cut and captioned."""

    resolution: str = setting(
        "512,512",
        "Max resolution",
        "Width, height in pixels; one number means a square. With buckets it limits the area, so "
        "other proportions keep theirs. 512,512 for SD 1.x, 768,768 for SD 2.x 768, 1024,1024 for "
        "SDXL.",
        gui="max_resolution",
        unit="pixels",
    )
    enable_bucket: bool = setting(
        True,
        "Enable buckets",
        "Images of different proportions are sorted into buckets, and each batch comes from one "
        "bucket. Off: every image is scaled to cover the resolution and cut at its centre.",
    )
    min_bucket_reso: int = setting(
        256,
        "Minimum bucket resolution",
        "The shortest side a bucket may have; rounded down to a multiple of the step. Without "
        "effect while Don't upscale bucket resolution is on.",
        between=(64, 4096),
        unit="pixels",
    )
    max_bucket_reso: int = setting(
        2048,
        "Maximum bucket resolution",
        "The longest side a bucket may have; rounded up to a multiple of the step. Without effect "
        "while Don't upscale bucket resolution is on.",
        between=(64, 8192),
        unit="pixels",
    )
    bucket_reso_steps: int = setting(
        64,
        "Bucket resolution steps",
        "Bucket sides are multiples of this: a multiple of 64 for SD 1.x and 2.x, of 32 for SDXL.",
        between=(8, 512),
        unit="pixels",
        box="Parameters / Advanced",
    )
    bucket_no_upscale: bool = setting(
        True,
        "Don't upscale bucket resolution",
        "On: a small image is trained at its own size, cut to multiples of the step (500 becomes "
        "448). Off: it is enlarged to the resolution.",
        box="Parameters / Advanced",
    )
    caption_extension: str = setting(
        ".txt",
        "Caption Extension",
        "The ending of caption files beside the images. Blank means .caption, as in kohya's "
        "scripts. Images without such a file use .txt, .caption or .cap, whichever is there, and "
        "the plan says so.",
        search="caption file extension",
    )
    dataset_repeats: int | None = setting(
        None,
        "Repeats of a flat folder",
        "Set it when the images lie directly in the image folder: each is then repeated this often "
        "per epoch. Blank: images lie in <repeats>_<word> folders.",
        between=(1, 100_000),
        gui=None,
        box="Folders",
    )
    flip_aug: bool = setting(
        False,
        "Flip augmentation",
        "Each image is mirrored in half of its uses. Not for faces, text or anything with a left "
        "and right.",
        box="Parameters / Advanced",
    )
    color_aug: bool = setting(
        False,
        "Color augmentation",
        "In a third of its uses an image is shown a little brighter, darker or in shifted hues. "
        "Not together with Cache latents.",
        box="Parameters / Advanced",
    )
    random_crop: bool = setting(
        False,
        "Random crop instead of center crop",
        "The overhang is cut at a random place at each use. Not together with Cache latents.",
        box="Parameters / Advanced",
    )

    @property
    def size(self) -> tuple[int, int]:
        """The resolution as (width, height)."""
        width, height = (int(part) for part in self.resolution.split(","))
        return width, height

    @field_validator("resolution", mode="before")
    @classmethod
    def _as_width_height(cls, value: Any) -> str:
        parts = value.replace("x", ",").split(",") if isinstance(value, str) else value
        parts = parts if isinstance(parts, list | tuple) else [parts]
        try:
            sides = [int(part) for part in parts]
        except (TypeError, ValueError, OverflowError):  # OverflowError: inf
            raise ValueError(
                f"{kind_of(value)} is no size; write width,height such as 512,768"
            ) from None
        sides = sides * 2 if len(sides) == 1 else sides
        if len(sides) != 2 or not all(64 <= side <= 8192 for side in sides):
            raise ValueError(
                f"{kind_of(value)} is no size; write width,height, each from 64 to 8192"
            )
        return f"{sides[0]},{sides[1]}"

    @field_validator("caption_extension")
    @classmethod
    def _with_a_dot(cls, value: str) -> str:
        value = value.strip()
        if set(value) & set("/\\") or value.endswith("."):
            raise ValueError(f"{value!r} is no file extension; write one such as .txt")
        return value if not value or value.startswith(".") else f".{value}"
