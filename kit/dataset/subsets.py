"""A dataset configuration, as sd-scripts reads it: data sets side by side, each of several folders.

    [general]
    caption_extension = ".txt"

    [[datasets]]
    resolution = [768, 768]
    batch_size = 2

      [[datasets.subsets]]
      image_dir = "cats"
      num_repeats = 10
      flip_aug = true

A value stands in a subset, its data set, [general] or the settings; the first of these counts. So
every subset has settings of its own, which the rest of the house asks for an image.
Source: https://github.com/kohya-ss/sd-scripts/blob/main/docs/config_README-en.md (behaviour).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kit.errors import SettingsError, Unreadable, nearest
from kit.reading import paths
from kit.reading.fields import kind_of
from kit.reading.texts import read_json, read_toml
from kit.settings import Settings, declarations
from kit.settings.rules import Idle, idle_settings, notices, problems

NAME = "dataset_config"
# Of a data set as a whole; their names in the settings, where those differ, stand in SETTINGS.
OF_DATASETS = frozenset({
    "resolution", "batch_size", "enable_bucket", "bucket_no_upscale", "min_bucket_reso",
    "max_bucket_reso", "bucket_reso_steps",
})  # fmt: skip
ANYWHERE = frozenset({
    "num_repeats", "class_tokens", "caption_extension", "shuffle_caption", "keep_tokens",
    "keep_tokens_separator", "caption_separator", "secondary_separator", "enable_wildcard",
    "caption_prefix", "caption_suffix", "caption_dropout_rate", "caption_tag_dropout_rate",
    "caption_dropout_every_n_epochs", "token_warmup_min", "token_warmup_step", "flip_aug",
    "color_aug", "random_crop", "alpha_mask", "validation_split", "validation_count",
    "validation_seed",
})  # fmt: skip
OF_SUBSETS = frozenset({"image_dir", "metadata_file", "conditioning_data_dir", "is_reg"})
SETTINGS = {"batch_size": "train_batch_size"}
OWN: dict[str, tuple[type, str]] = {
    "image_dir": (str, "a folder"),
    "metadata_file": (str, "a .json or .jsonl file"),
    "class_tokens": (str, "text"),
    "num_repeats": (int, "a whole number from 1"),
    "is_reg": (bool, "true or false"),
}
LEAST = {"num_repeats": 1}
PATHS = frozenset({"image_dir", "metadata_file", "conditioning_data_dir"})
# What the reference knows and we cannot do: the values that ask for nothing, and why.
IMPOSSIBLE: dict[str, tuple[tuple[Any, ...], str]] = {
    "network_multiplier": ((1,), "the LoRA has one strength; the reference reads it, unused"),
    "resize_interpolation": ((), "images shrink by area and grow by Lanczos, as without it"),
    "face_crop_aug_range": ((), "faces are not looked for"),
    "custom_attributes": (({},), "what an image should keep cannot be told apart"),
    "cache_info": ((False, True), ""),  # sizes are remembered by themselves
}


@dataclass(frozen=True)
class Subset:
    """One folder or metadata file, with what counts for its images."""

    name: str  # as the plan shows it
    dataset: int  # the number of its [[datasets]], from 0
    settings: Settings
    given: frozenset[str]  # the settings that the file decides
    image_dir: str = ""
    metadata_file: str = ""
    class_tokens: str = ""
    num_repeats: int = 1
    is_reg: bool = False


def read_subsets(settings: Settings) -> tuple[Subset, ...]:
    """The subsets of the configuration that the settings name; none where they name none.

    Raises: SettingsError with everything that is wrong in it.
    """
    if not settings.folders.dataset_config.strip():
        return ()
    try:
        path = paths.path_of(settings.folders.dataset_config.strip())
    except Unreadable as error:
        raise SettingsError([f"[folders] {NAME}: {error.found}"]) from error
    wrong: list[str] = []
    subsets = tuple(_subsets(_read(path), settings, path.parent, wrong))
    if not subsets and not wrong:
        wrong.append("there is no subset; write [[datasets]] and in it [[datasets.subsets]]")
    if wrong:
        raise SettingsError([f"[folders] {NAME}: {text}" for text in wrong])
    told = [problems(subset.settings) for subset in subsets]
    if found := list(_told_of_all(subsets, told, before=f"[folders] {NAME}: ")):
        raise SettingsError(found)
    return subsets


def _told_of_all(
    subsets: Sequence[Subset], told: Sequence[list[str]], *, before: str = ""
) -> Iterator[str]:
    """What holds for all subsets once, the rest with the subset's name."""
    shared = [text for text in told[0] if all(text in texts for texts in told)]
    yield from shared
    for subset, texts in zip(subsets, told, strict=True):
        yield from (f"{before}{shown(subset)}: {text}" for text in texts if text not in shared)


def subset_notices(settings: Settings, subsets: tuple[Subset, ...]) -> Iterator[str]:
    """What has no effect in each subset, and which settings the configuration replaces."""
    yield from _told_of_all(subsets, [notices(subset.settings) for subset in subsets])
    changed = settings.changed()
    for each in idle_beside(subsets):
        yield from each.told(changed)


def idle_beside(subsets: Sequence[Subset]) -> Iterator[Idle]:
    """Settings in whose place the configuration's own count, everywhere."""
    yield Idle(f"{NAME} names the images", "train_data_dir", "reg_data_dir")
    replaced = [name for name in declarations() if all(name in each.given for each in subsets)]
    yield Idle(f"{NAME} sets it for every subset", *replaced)


def idle_in_each(subsets: Sequence[Subset]) -> dict[str, str]:
    """Every setting without effect in any subset, and why."""
    found = [idle_settings(subset.settings) for subset in subsets]
    beside = {name: each.why for each in idle_beside(subsets) for name in each.names}
    return beside | {n: why for n, why in found[0].items() if all(n in each for each in found)}


def shown(subset: Subset) -> str:
    """`data set 1, cats`."""
    return f"data set {subset.dataset + 1}, {subset.name}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content: Any = (read_json if path.suffix.lower() == ".json" else read_toml)(path)
    except Unreadable as error:
        why = f"{path} {error.why}; give a .toml or .json file"
        raise SettingsError([f"[folders] {NAME}: {why}"]) from error
    return content if isinstance(content, dict) else {"": content}


def _subsets(
    content: dict[str, Any], settings: Settings, folder: Path, wrong: list[str]
) -> Iterator[Subset]:
    for name in content.keys() - {"general", "datasets"}:
        wrong.append(f"{name!r} is no part of it; there are [general] and [[datasets]]")
    read = partial(_table, settings=settings, folder=folder, wrong=wrong)
    general = read(content.get("general", {}), "[general]", ANYWHERE | OF_DATASETS)
    for number, dataset in enumerate(_tables(content.get("datasets"), "[[datasets]]", wrong)):
        place = f"data set {number + 1}"
        inner = _tables(dataset.pop("subsets", None), f"{place}: [[datasets.subsets]]", wrong)
        shared = general | read(dataset, place, ANYWHERE | OF_DATASETS)
        for count, table in enumerate(inner):
            here = f"{place}, subset {count + 1}"
            values = shared | read(table, here, ANYWHERE | OF_SUBSETS)
            if values.get("image_dir") or values.get("metadata_file"):
                yield _subset(values, settings, number)
            elif not wrong:
                wrong.append(f"{here}: image_dir is missing: the folder of the images themselves")


def _tables(value: Any, place: str, wrong: list[str]) -> list[dict[str, Any]]:
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return [dict(part) for part in value]
    wrong.append(f"{place} is missing, or is no list of tables")
    return []


def _table(
    value: Any,
    place: str,
    possible: frozenset[str],
    *,
    settings: Settings,
    folder: Path,
    wrong: list[str],
) -> dict[str, Any]:
    """The values of a table; what cannot be used is told in `wrong`."""
    if not isinstance(value, dict):
        wrong.append(f"{place} is no table")
        return {}
    # JSON's null leaves it to the table above.
    values = {name: given for name, given in value.items() if given is not None}
    found = [
        *_misplaced(values, possible),
        *_of_wrong_kind(values),
        *_refused(_changes(values, possible), settings),
    ]
    wrong += [f"{place}: {text}" for text in found]
    placed = {name: values[name] for name in PATHS & values.keys() if not found}
    return values | {name: _beside(path, folder) for name, path in placed.items()}


def _misplaced(values: dict[str, Any], possible: frozenset[str]) -> Iterator[str]:
    for name, given in values.items():
        if name in possible:
            continue
        if name in IMPOSSIBLE:
            harmless, why = IMPOSSIBLE[name]
            if given not in harmless:
                yield f"{name} = {kind_of(given)} cannot be done: {why}; take it out"
        elif name in ANYWHERE | OF_DATASETS | OF_SUBSETS:
            where = "[general] or [[datasets]]" if name in OF_DATASETS else "[[datasets.subsets]]"
            yield f"{name} does not stand here, but in {where}"
        else:
            yield f"there is no {name}{nearest(name, possible)}"


def _of_wrong_kind(values: dict[str, Any]) -> Iterator[str]:
    for name, (kind, words) in OWN.items():
        if name not in values:
            continue
        value = values[name]
        if type(value) is not kind or (isinstance(value, int) and value < LEAST.get(name, 0)):
            yield f"{name} = {kind_of(value)} is not {words}"
        elif name in PATHS and isinstance(value, str) and (why := paths.why_no_path(value)):
            yield f"{name} {why}"


def _refused(changes: dict[str, Any], settings: Settings) -> list[str]:
    try:
        settings.replace(**changes)
    except SettingsError as error:
        return list(error.problems)
    return []


def _changes(values: dict[str, Any], possible: frozenset[str]) -> dict[str, Any]:
    """The values that are settings, under the settings' names."""
    names = (values.keys() & possible) - OWN.keys()
    return {SETTINGS.get(name, name): values[name] for name in names}


def _subset(values: dict[str, Any], settings: Settings, dataset: int) -> Subset:
    own = {name: values[name] for name in OWN if name in values}
    own.setdefault("num_repeats", settings.images.dataset_repeats or 1)
    name = Path(str(own.get("metadata_file") or own["image_dir"])).name  # or told already
    try:
        changes = _changes(values, ANYWHERE | OF_DATASETS | OF_SUBSETS)
        if "validation_split" in changes:  # the file's own share counts, not the settings' count
            changes.setdefault("validation_count", 0)
        return Subset(name, dataset, settings.replace(**changes), frozenset(changes), **own)
    except SettingsError:  # told already, where it stands
        return Subset(name, dataset, settings, frozenset())


def _beside(path: str, folder: Path) -> str:
    """A relative path is looked for beside the configuration first, as the reference does not."""
    beside = folder / paths.path_of(path)
    return str(beside if paths.is_there(beside) else paths.path_of(path))
