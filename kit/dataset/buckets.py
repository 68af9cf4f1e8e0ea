"""Image sizes to bucket sizes: arithmetic only, as the reference trainer does it.

Sizes are (width, height) in pixels. Source: kohya-ss/sd-scripts, library/model_util.py
make_bucket_resolutions and library/train_util.py BucketManager (behaviour, not code).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from kit.errors import DatasetError, SettingsError

Size = tuple[int, int]


@dataclass(frozen=True)
class BucketRule:
    """How image sizes become bucket sizes."""

    resolution: Size
    shortest: int = 256
    longest: int = 2048
    step: int = 64
    no_upscale: bool = True
    enabled: bool = True


@dataclass(frozen=True)
class BucketFit:
    """Where one image goes: scaled to `resized`, then cut to `bucket`."""

    bucket: Size
    resized: Size

    @property
    def overhang(self) -> Size:
        """Pixels cut away per axis."""
        return self.resized[0] - self.bucket[0], self.resized[1] - self.bucket[1]


def adjusted_bounds(rule: BucketRule) -> Size:
    """Shortest side down (to one step at least), longest side up to a multiple of the step.

    Raises: SettingsError where the resolution then lies outside.
    """
    low = max(rule.step, rule.shortest // rule.step * rule.step)
    high = -(-rule.longest // rule.step) * rule.step
    shown = ",".join(map(str, rule.resolution))
    if min(rule.resolution) < low:
        raise SettingsError(
            [
                f"[images] min_bucket_reso: {low} is more than a side of resolution = {shown}; "
                "lower it"
            ]
        )
    if max(rule.resolution) > high:
        raise SettingsError(
            [
                f"[images] max_bucket_reso: {high} is less than a side of resolution = {shown}; "
                "raise it"
            ]
        )
    return low, high


@lru_cache(maxsize=64)
def bucket_sizes(rule: BucketRule) -> tuple[Size, ...]:
    """Every bucket that may be used while upscaling is allowed, sorted."""
    low, high = adjusted_bounds(rule)
    step = rule.step
    area = rule.resolution[0] * rule.resolution[1]
    square = math.isqrt(area) // step * step
    sizes = {(square, square)}
    for width in range(low, high + 1, step):
        height = min(high, area // width // step * step)
        if height >= low:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def fit(size: Size, rule: BucketRule) -> BucketFit:
    """The bucket of one image, and the size it is scaled to first.

    Raises: DatasetError where the image is too small for any bucket.
    """
    if not rule.enabled:
        return BucketFit(rule.resolution, _covering(size, rule.resolution))
    return _fit_unenlarged(size, rule) if rule.no_upscale else _fit_among(size, rule)


def _fit_among(size: Size, rule: BucketRule) -> BucketFit:
    width, height = size
    sizes = bucket_sizes(rule)
    ratio = width / height
    bucket = size if size in sizes else min(sizes, key=lambda b: abs(b[0] / b[1] - ratio))
    return BucketFit(bucket, _covering(size, bucket))


def _covering(size: Size, bucket: Size) -> Size:
    """The size that keeps the proportions and covers the bucket."""
    width, height = size
    is_wider = width / height > bucket[0] / bucket[1]
    scale = bucket[1] / height if is_wider else bucket[0] / width
    return int(width * scale + 0.5), int(height * scale + 0.5)


def _fit_unenlarged(size: Size, rule: BucketRule) -> BucketFit:
    width, height = size
    step, area = rule.step, rule.resolution[0] * rule.resolution[1]
    resized = _reduced(size, area, step) if width * height > area else size
    bucket = resized[0] // step * step, resized[1] // step * step
    if 0 in bucket:
        raise DatasetError(
            f"An image of {width} x {height} pixels is smaller than one bucket step of {step}.",
            "With bucket_no_upscale on, images keep their size.",
            "Turn bucket_no_upscale off, lower bucket_reso_steps, or use a larger image.",
        )
    return BucketFit(bucket, resized)


def _reduced(size: Size, area: int, step: int) -> Size:
    """Scaled down to the area, one side a multiple of the step, with the least distortion."""
    ratio = size[0] / size[1]
    ideal_width = math.sqrt(area * ratio)
    ideal_height = area / ideal_width

    def rounded(length: float) -> int:
        whole = int(length + 0.5)
        return whole - whole % step

    by_width = rounded(ideal_width)
    height_of_it = rounded(by_width / ratio) if by_width else 0
    by_height = rounded(ideal_height)
    width_of_it = rounded(by_height * ratio)
    if height_of_it == 0 and by_height == 0:
        return by_width, by_height
    error_by_width = abs(by_width / height_of_it - ratio) if height_of_it else math.inf
    error_by_height = abs(width_of_it / by_height - ratio) if by_height else math.inf
    if error_by_width < error_by_height:
        return by_width, int(by_width / ratio + 0.5)
    return int(by_height * ratio + 0.5), by_height


def crop_conditions(
    size: Size, place: BucketFit, offset: Size, *, flipped: bool
) -> tuple[int, ...]:
    """SDXL's six numbers: original height, width; crop top, left; target height, width.

    The crop is the true offset in the scaled image, as in Stability's code (SDXL, Podell et al.
    2023, section 2.2); the reference trainer reports the margins of a letter-boxed image instead.
    offset: (left, top) of the cut. A mirrored image is cut from its mirrored left.
    """
    left, top = offset
    if flipped:
        left = place.overhang[0] - left
    return size[1], size[0], top, left, place.bucket[1], place.bucket[0]


def letterbox_conditions(size: Size, bucket: Size, *, flipped: bool) -> tuple[int, ...]:
    """The six numbers as the reference trainer reports them: margins of the image fitted inside."""
    width, height = bucket
    ratio, image_ratio = width / height, size[0] / size[1]
    if ratio > image_ratio:
        inner_width, inner_height = height * image_ratio, float(height)
    else:
        inner_width, inner_height = float(width), width / image_ratio
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    if flipped:
        left = width - (left + inner_width)
    return size[1], size[0], int(top), int(left), height, width
