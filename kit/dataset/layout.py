"""Images to buckets to the layout of an epoch, for one data set or for several side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from kit.dataset.batches import Layout, balanced_repeats
from kit.dataset.buckets import BucketFit, BucketRule, Size, bucket_sizes, fit
from kit.dataset.images import TrainImage
from kit.dataset.subsets import Subset
from kit.errors import DatasetError
from kit.settings import Images


def bucket_rule(images: Images) -> BucketRule:
    """The rule that the settings describe."""
    return BucketRule(
        resolution=images.size,
        shortest=images.min_bucket_reso,
        longest=images.max_bucket_reso,
        step=images.bucket_reso_steps,
        no_upscale=images.bucket_no_upscale,
        enabled=images.enable_bucket,
    )


def fit_all(images: Sequence[TrainImage], rules: Sequence[BucketRule]) -> tuple[BucketFit, ...]:
    """The bucket of every image by the rule of its own.

    Raises: DatasetError naming every image that is too small.
    """
    for rule in dict.fromkeys(rules):
        if rule.enabled and not rule.no_upscale:
            bucket_sizes(rule)  # tells contradicting bounds before any image is blamed
    fits, small, steps = [], [], set()
    for image, rule in zip(images, rules, strict=True):
        try:
            fits.append(fit((image.width, image.height), rule))
        except DatasetError:
            small.append(f"{image.path.name} ({image.width} x {image.height})")
            steps.add(rule.step)
    if small:
        raise DatasetError(
            f"Too small for buckets in steps of {', '.join(map(str, sorted(steps)))} pixels: "
            f"{', '.join(small[:5])}" + (f" and {len(small) - 5} more." if len(small) > 5 else "."),
            "With bucket_no_upscale on, images are never enlarged, and scaled down to the "
            "resolution.",
            "Turn bucket_no_upscale off, lower bucket_reso_steps, or remove these images.",
        )
    return tuple(fits)


def lay_out_all(
    images: Sequence[TrainImage],
    fits: Sequence[BucketFit],
    subsets: Sequence[Subset],
    *,
    batch_size: int,
    seed: int,
) -> Layout:
    """The layouts of all data sets of a configuration, or that of the folders' images.

    Raises: DatasetError for a data set of regularisation images alone.
    """
    if not subsets:
        every = [i for i, image in enumerate(images) if not image.held_out]
        return lay_out(images, fits, every, batch_size=batch_size, seed=seed)
    layouts = []
    for number in sorted({subset.dataset for subset in subsets}):
        members = [
            i
            for i, image in enumerate(images)
            if subsets[image.subset].dataset == number and not image.held_out
        ]
        if all(images[i].is_reg for i in members):
            raise DatasetError(
                f"dataset_config: data set {number + 1} holds regularisation images alone.",
                "They are balanced with the training images of the same [[datasets]].",
                "Move their subset to the data set that they belong to.",
            )
        size = next(s.settings for s in subsets if s.dataset == number).basic.train_batch_size
        layouts.append(lay_out(images, fits, members, batch_size=size, seed=seed, part=number))
    return replace(layouts[0], more=tuple(layouts[1:]))


def lay_out(
    images: Sequence[TrainImage],
    fits: Sequence[BucketFit],
    members: Collection[int],
    *,
    batch_size: int,
    seed: int,
    part: int = 0,
) -> Layout:
    """Images to buckets, regularisation images balanced with the training images.

    members: the images of this data set, by index; part: its number among several.
    """
    uses = {i: 0 if images[i].is_reg else images[i].repeats for i in members}
    reg = [i for i in members if images[i].is_reg]
    counts = balanced_repeats([images[i].repeats for i in reg], sum(uses.values()))
    uses |= dict(zip(reg, counts, strict=True))
    in_bucket: dict[Size, list[tuple[int, int]]] = {}
    for i, count in uses.items():
        if count:
            in_bucket.setdefault(fits[i].bucket, []).append((i, count))
    # Regularisation images beyond the balance take turns with their bucket's others, epoch by
    # epoch.
    idle = {fits[i].bucket for i in reg if not uses[i]} & set(in_bucket)
    rotating = tuple(
        (size, tuple(i for i in reg if fits[i].bucket == size)) for size in sorted(idle)
    )
    buckets = tuple((size, tuple(in_bucket[size])) for size in sorted(in_bucket))
    return Layout(buckets, batch_size, seed, rotating, part)
