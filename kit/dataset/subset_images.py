"""The images of the settings' folders, or of a dataset configuration's subsets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.catalog import CAPTION_EXTENSIONS
from kit.dataset.captions import words_around
from kit.dataset.files import ALWAYS, PLUG_INS, READABLE, image_files
from kit.dataset.images import (
    CONCEPT,
    Findings,
    Scan,
    TrainImage,
    add_image,
    readable_folders,
    scan,
    told,
)
from kit.dataset.masks import check_masks
from kit.dataset.subsets import Subset, shown
from kit.errors import DatasetError, Unreadable
from kit.reading import paths
from kit.reading.fields import Table
from kit.reading.texts import from_json, read_text
from kit.settings import Captions, Folders, Images


def scan_folders(folders: Folders, images: Images, captions: Captions, *, masked: bool) -> Scan:
    """The images of the training and the regularisation folder; masked: each with its mask.

    Raises: DatasetError where a folder or a mask is missing, or a folder holds no image.
    """
    dataset = scan(
        folders.train_data_dir,
        folders.reg_data_dir,
        caption_extension=images.caption_extension,
        dataset_repeats=images.dataset_repeats,
        words=words_around(captions),
    )
    if masked and folders.conditioning_data_dir:
        with readable_folders():
            check_masks(dataset.images, folders.conditioning_data_dir)
    return dataset


def scan_subsets(subsets: Sequence[Subset]) -> Scan:
    """Find every image of every subset, in the order of the configuration.

    Raises: DatasetError where a folder, a metadata file or a listed image is missing, or a subset
    holds no image.
    """
    images: list[TrainImage] = []
    notices: list[str] = []
    for number, subset in enumerate(subsets):
        findings = Findings(are_named=bool(subset.metadata_file))
        read = _read_metadata if subset.metadata_file else _read_folder
        with readable_folders():
            read(subset, number, findings)
        if not findings.images:
            raise DatasetError(
                f"dataset_config, {shown(subset)}: there is no image that can be read"
                + (f"; broken: {', '.join(findings.broken[:5])}" if findings.broken else "")
                + (
                    f"; too large: {', '.join(findings.too_large[:5])}"
                    if findings.too_large
                    else ""
                )
                + (f"; what lies there: {left}." if (left := findings.leftover.told()) else "."),
                f"Images lie directly in image_dir. {READABLE}",
                "Correct image_dir, or take the subset out.",
            )
        images += findings.images
        extension = subset.settings.images.caption_extension or ".caption"
        texts = told(
            findings,
            extension,
            instead=_instead(subset.class_tokens),
            words=words_around(subset.settings.captions),
        )
        notices += [f"{shown(subset)}: {text}" for text in texts]
    with readable_folders():
        _check_masks(subsets, images)
    return Scan(tuple(images), tuple(notices))


def _instead(class_tokens: str) -> str:
    """What becomes of images without a caption file; no word of the folder's name counts here."""
    if class_tokens.strip():
        return "class_tokens is the caption"
    return "class_tokens is blank, so they have no caption of their own"


def _read_folder(subset: Subset, number: int, findings: Findings) -> None:
    folder = paths.path_of(subset.image_dir, "dataset_config: image_dir")
    if not paths.is_folder(folder):
        raise DatasetError(
            f"dataset_config, {shown(subset)}: image_dir = {folder} is no folder.",
            "It holds the images themselves; a relative path is looked for beside the "
            "configuration, then where the program runs.",
            "Correct image_dir.",
        )
    match = CONCEPT.match(folder.name)
    if match and int(match[1]) != subset.num_repeats:
        findings.notices.append(
            f"the {match[1]} of the folder's name does not count here: num_repeats = "
            f"{subset.num_repeats} does"
        )
    extension = subset.settings.images.caption_extension or ".caption"
    files = image_files(folder)
    findings.leftover.look(folder, files, (extension, *CAPTION_EXTENSIONS), deep=True)
    for path in files:
        add_image(
            path,
            findings,
            extension,
            folder.name,
            subset.num_repeats,
            subset.class_tokens.strip(),
            is_reg=subset.is_reg,
            subset=number,
        )


def _read_metadata(subset: Subset, number: int, findings: Findings) -> None:
    path, missing = paths.path_of(subset.metadata_file, "dataset_config: metadata_file"), []
    for key, entry in _entries(path):
        image = _image_of(key, subset)
        if image is None:
            missing.append(key)
            continue
        size = findings.size_of(image)
        if size is None:
            continue
        caption = _joined(entry, subset.settings.captions.caption_separator)
        repeats, is_reg = subset.num_repeats, subset.is_reg
        findings.images.append(
            TrainImage(image, *size, caption, path.name, repeats, is_reg, subset=number)
        )
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DatasetError(
            f"dataset_config: {path} names images that are not there: "
            f"{', '.join(missing[:5])}{more}.",
            "A name is a path, or lies in the subset's image_dir.",
            "Correct image_dir or the names, or take them out.",
        )


def _entries(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Image names with what is said of them, by name; of a .json or a .jsonl file."""
    try:
        text = read_text(path)
        if path.suffix.lower() != ".jsonl":
            entries = dict(Table(from_json(text, path), path).tables())
        else:
            lines = ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
            rows = [Table(from_json(line, f"line {n}"), f"line {n}") for n, line in lines]
            entries = {row.text("image_path"): row for row in rows}
        return sorted((key, entry.values) for key, entry in entries.items())
    except Unreadable as error:
        why = error.why if error.what == str(path) else f"cannot be read: {error.what} {error.why}"
        raise DatasetError(
            f"dataset_config: metadata_file = {path} {why}.",
            'It is {"<image>": {"caption": "...", "tags": "..."}} as .json, or a .jsonl with '
            "image_path in every line.",
            "Correct the file, or use a subset with image_dir alone.",
        ) from error


def _image_of(key: str, subset: Subset) -> Path | None:
    """The file that a key names, with or without its ending."""
    path = paths.path_of(subset.image_dir, "dataset_config: image_dir") / key
    if paths.is_file(path):
        return path
    found = (Path(f"{path}{ending}") for ending in sorted({*ALWAYS, *PLUG_INS}))
    return next((path for path in found if paths.is_file(path)), None)


def _joined(entry: dict[str, Any], separator: str) -> str:
    """Every line of the caption, with the tags behind it."""
    tags = separator.join(line.strip() for line in str(entry.get("tags") or "").splitlines())
    lines = [line.strip() for line in str(entry.get("caption") or "").splitlines()]
    lines = [line for line in lines if line] or [""]
    joined = (f"{separator} ".join(part for part in (line, tags) if part) for line in lines)
    return "\n".join(joined)


def _check_masks(subsets: Sequence[Subset], images: Sequence[TrainImage]) -> None:
    """Those of one mask folder together: two subsets must not take each other's."""
    asked: dict[str, list[TrainImage]] = {}
    for image in images:
        settings = subsets[image.subset].settings
        if settings.noise.masked_loss and (folder := settings.folders.conditioning_data_dir):
            asked.setdefault(folder, []).append(image)
    for folder, own in asked.items():
        check_masks(own, folder)
