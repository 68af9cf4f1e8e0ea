"""What a LoRA file says about the images it was trained on, in the words of kohya's sd-scripts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kit.dataset.batches import Layout
from kit.dataset.buckets import Size
from kit.dataset.images import TrainImage
from kit.dataset.subsets import Subset
from kit.planning import Plan
from kit.settings import Basic, Captions, Images

Placed = tuple[TrainImage, Size]  # an image and its bucket


def dataset_metadata(plan: Plan) -> dict[str, Any]:
    """The ss_* entries about folders, buckets and tags; of a dataset configuration ss_datasets."""
    placed = [
        (image, fit.bucket)
        for image, fit in zip(plan.images, plan.fits, strict=True)
        if not image.held_out
    ]
    if plan.subsets:
        return _of_config(plan.subsets, plan.layout.parts, placed)
    settings = plan.settings
    found = _of_folders(settings.images, settings.basic, settings.captions, plan.layout, placed)
    return {**found, "ss_total_batch_size": settings.basic.train_batch_size * plan.gathered}


def _of_folders(
    images: Images, basic: Basic, captions: Captions, layout: Layout, placed: Sequence[Placed]
) -> dict[str, Any]:
    info = _bucket_info(layout, placed) if images.enable_bucket else None
    found = [image for image, _ in placed]
    return {
        "ss_batch_size_per_device": basic.train_batch_size,
        "ss_resolution": images.size,
        "ss_bucket_no_upscale": images.enable_bucket and images.bucket_no_upscale,
        **{f"ss_{name}": value for name, value in _buckets(images).items()},
        "ss_color_aug": images.color_aug,
        "ss_flip_aug": images.flip_aug,
        "ss_random_crop": images.random_crop,
        "ss_shuffle_caption": captions.shuffle_caption,
        "ss_keep_tokens": captions.keep_tokens,
        "ss_dataset_dirs": json.dumps(_folders(found, is_reg=False)),
        "ss_reg_dataset_dirs": json.dumps(_folders(found, is_reg=True)),
        "ss_tag_frequency": json.dumps(_tags((i.folder, i) for i in found)),
        "ss_bucket_info": json.dumps(info),
    }


def _buckets(images: Images) -> dict[str, Any]:
    step, enabled = images.bucket_reso_steps, images.enable_bucket
    low, high = images.min_bucket_reso // step * step, -(-images.max_bucket_reso // step) * step
    return {
        "enable_bucket": enabled,
        "min_bucket_reso": low if enabled else None,
        "max_bucket_reso": high if enabled else None,
    }


def _of_config(
    subsets: Sequence[Subset], layouts: Sequence[Layout], placed: Sequence[Placed]
) -> dict[str, Any]:
    names = _unique([subset.name for subset in subsets])
    dirs = {
        names[number]: {
            "n_repeats": subset.num_repeats,
            "img_count": sum(image.subset == number for image, _ in placed),
        }
        for number, subset in enumerate(subsets)
        if not subset.is_reg
    }
    return {
        "ss_datasets": json.dumps([_told(layout, subsets, names, placed) for layout in layouts]),
        "ss_tag_frequency": json.dumps(_tags((names[i.subset], i) for i, _ in placed)),
        "ss_dataset_dirs": json.dumps(dirs),
    }


def _told(
    layout: Layout, every: Sequence[Subset], names: Mapping[int, str], placed: Sequence[Placed]
) -> dict[str, Any]:
    """One entry of ss_datasets."""
    numbers = [n for n, subset in enumerate(every) if subset.dataset == layout.part]
    subsets = [every[number] for number in numbers]
    images, own = subsets[0].settings.images, [i for i, _ in placed if i.subset in numbers]
    return {
        "is_dreambooth": not any(subset.metadata_file for subset in subsets),
        "batch_size_per_device": layout.batch_size,
        "num_train_images": sum(image.repeats for image in own if not image.is_reg),
        "num_reg_images": sum(image.repeats for image in own if image.is_reg),
        "resolution": images.size,
        **_buckets(images),
        "tag_frequency": _tags((names[image.subset], image) for image in own),
        "bucket_info": _bucket_info(layout, placed) if images.enable_bucket else None,
        "subsets": [
            _subset(subset, sum(image.subset == number for image in own))
            for number, subset in zip(numbers, subsets, strict=True)
        ],
    }


def _subset(subset: Subset, count: int) -> dict[str, Any]:
    images, captions = subset.settings.images, subset.settings.captions
    told: dict[str, Any] = {
        "img_count": count,
        "num_repeats": subset.num_repeats,
        "color_aug": images.color_aug,
        "flip_aug": images.flip_aug,
        "random_crop": images.random_crop,
        "shuffle_caption": captions.shuffle_caption,
        "keep_tokens": captions.keep_tokens,
        "keep_tokens_separator": captions.keep_tokens_separator,
        "secondary_separator": captions.secondary_separator,
        "enable_wildcard": captions.enable_wildcard,
        "caption_prefix": captions.caption_prefix,
        "caption_suffix": captions.caption_suffix,
    }
    if subset.metadata_file:  # a name alone, as everywhere: paths are private
        return {**told, "metadata_file": subset.name}
    own = {"class_tokens": subset.class_tokens or None, "is_reg": subset.is_reg}
    return {**told, "image_dir": subset.name, **own}


def _unique(names: Sequence[str]) -> dict[int, str]:
    """Names by number; the second of the same name gets " (2)", as in the reference."""
    seen: Counter[str] = Counter()
    unique = {}
    for number, name in enumerate(names):
        seen[name] += 1
        unique[number] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return unique


def _folders(images: Sequence[TrainImage], *, is_reg: bool) -> dict[str, Any]:
    folders: dict[str, dict[str, int]] = {}
    for image in images:
        if image.is_reg == is_reg:
            told = folders.setdefault(image.folder, {"n_repeats": image.repeats, "img_count": 0})
            told["img_count"] += 1
    return folders


def _tags(images: Iterable[tuple[str, TrainImage]]) -> dict[str, Counter[str]]:
    """How often each part of a caption stands in a folder's captions, repeats not counted."""
    folders: dict[str, Counter[str]] = {}
    for folder, image in images:
        parts = (part.strip().lower() for part in image.caption.partition("\n")[0].split(","))
        folders.setdefault(folder, Counter()).update(part for part in parts if part)
    return folders


def _bucket_info(layout: Layout, placed: Sequence[Placed]) -> dict[str, Any]:
    """The buckets in use, and by how much their proportions miss those of their images."""
    used = sorted(i for _, members in layout.buckets for i, _ in members)
    errors = [
        abs(wide / high - image.width / image.height)
        for image, (wide, high) in (placed[i] for i in used)
    ]
    buckets = {
        str(i): {"resolution": size, "count": sum(count for _, count in members)}
        for i, (size, members) in enumerate(layout.buckets)
    }
    return {"buckets": buckets, "mean_img_ar_error": float(np.mean(errors))}
