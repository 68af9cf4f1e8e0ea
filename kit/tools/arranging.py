"""Images into the folders that a training expects, and repeats that balance the folders.

    for event in arrange(filled(Arrangement, instance_prompt="zib", class_prompt="ball", ...)):
        print(event)

Originals are only read, and nothing that is there is replaced. `balance` renames folders, and that
only where it is asked to; `balanced` says what it would do.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.catalog import CAPTION_EXTENSIONS
from kit.dataset.files import READABLE, image_files
from kit.dataset.images import CONCEPT
from kit.errors import DatasetError, OutputError, SettingsError
from kit.events import Cached, Event, Noticed
from kit.reading.paths import path_of, resolved
from kit.settings.tools import Arrangement, Balance


@dataclass(frozen=True)
class Arranged:
    """What will be copied where, and the settings of a training on it."""

    folders: dict[Path, tuple[Path, ...]]  # a new folder, and the files that are copied into it
    settings: dict[str, str]


@dataclass(frozen=True)
class Renaming:
    """One folder's repeats, before and after."""

    folder: Path
    images: int
    before: int | None  # None: the name has no number
    after: int

    @property
    def target(self) -> Path:
        """The folder under its new name."""
        match = CONCEPT.match(self.folder.name)
        word = match[2] if match else self.folder.name
        return self.folder.with_name(f"{self.after}_{word}")


def arranged(asked: Arrangement) -> Arranged:
    """What `arrange` will do.

    Raises: SettingsError for what is blank; DatasetError for folders that are missing, without
    images or inside each other; OutputError where a target is there already.
    """
    blank = [
        f"[arrangement] {name}: it is blank; {why}"
        for name, why in {
            "instance_prompt": "write the trigger word",
            "class_prompt": "write what the subject is",
            "training_images": "name the folder of the images",
            "destination": "name the folder in which img and model are made",
        }.items()
        if not getattr(asked, name).strip()
    ]
    if blank:
        raise SettingsError(blank)
    root = path_of(asked.destination, "destination")
    words = f"{asked.instance_prompt} {asked.class_prompt}"
    train = root / "img" / f"{asked.training_repeats}_{words}"
    folders = {train: _files(asked.training_images, "training_images", train)}
    settings = {"train_data_dir": str(root / "img")}
    if asked.reg_images.strip() and asked.reg_repeats:
        reg = root / "reg" / f"{asked.reg_repeats}_{asked.class_prompt}"
        folders[reg] = _files(asked.reg_images, "reg_images", reg)
        settings["reg_data_dir"] = str(root / "reg")
    settings |= {"output_dir": str(root / "model"), "logging_dir": str(root / "log")}
    return Arranged(folders, settings)


def arrange(asked: Arrangement) -> Iterator[Event]:
    """Copy the images with their captions; each folder appears when it is whole.

    Raises: as `arranged`; OutputError where the destination cannot be written.
    """
    work = arranged(asked)
    total, done = sum(map(len, work.folders.values())), 0
    for folder, files in work.folders.items():
        part = folder.with_name(f".{folder.name}.part")  # hidden: no training takes it for images
        try:
            shutil.rmtree(part, ignore_errors=True)  # our own, of a copy that broke off
            part.mkdir(parents=True)
            for file in files:
                shutil.copy2(file, part / file.name)
                done += 1
                yield Cached("copies of images and captions", done, total)
            part.rename(folder)
        except OSError as error:
            raise OutputError(
                f"destination = {asked.destination} cannot be written: {error.strerror or error}.",
                "The images that you named are untouched.",
                "Free some space there, or choose another destination.",
            ) from error
    for name in ("output_dir", "logging_dir"):
        Path(work.settings[name]).mkdir(parents=True, exist_ok=True)
    told = ", ".join(f"{name} = {value}" for name, value in work.settings.items())
    yield Noticed(f"ready to train with {told}")


def balanced(asked: Balance) -> tuple[Renaming, ...]:
    """The repeats with which every folder is seen about equally often, whether they change or not.

    Raises: SettingsError, DatasetError where there is no such folder or nothing to balance.
    """
    if not asked.dataset_folder.strip():
        raise SettingsError(["[balance] dataset_folder: it is blank; name the folder"])
    root = path_of(asked.dataset_folder, "dataset_folder")
    if not root.is_dir():
        raise DatasetError(f"dataset_folder = {root} is no folder.", do="Correct its path.")
    found = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        match, count = CONCEPT.match(folder.name), len(image_files(folder))
        if folder.name.startswith(".") or not count or not (match or asked.all_folders):
            continue
        before = int(match[1]) if match else None
        found.append(Renaming(folder, count, before, max(1, round(asked.views / count))))
    if not found:
        raise DatasetError(
            f"dataset_folder = {root} holds no folder of images to balance.",
            "Such folders are named <repeats>_<word>; with all_folders any name will do.",
            "Name the folder that holds them.",
        )
    return tuple(found)


def balance(asked: Balance) -> Iterator[Event]:
    """Tell what becomes of every folder, and rename them where that is asked.

    Raises: as `balanced`; OutputError where a new name is taken, before anything is renamed.
    """
    found = balanced(asked)
    changes = [renaming for renaming in found if renaming.target != renaming.folder]
    for renaming in found:
        now = f"{renaming.before} repeats" if renaming.before else "no number"
        yield Noticed(
            f"{renaming.folder.name}: {renaming.images} images, {now} -> {renaming.after} repeats, "
            f"seen {renaming.images * renaming.after} times an epoch"
        )
    if not asked.rename:
        if changes:
            yield Noticed("nothing was renamed; with rename the folders get these repeats")
        return
    leaving = {renaming.folder for renaming in changes}
    targets = [renaming.target for renaming in changes]
    taken = [path for path in targets if targets.count(path) > 1]
    taken += [path for path in targets if path.exists() and path not in leaving]
    if taken:
        raise OutputError(
            f"{taken[0]} is there already, or two folders would get this name.",
            "Nothing was renamed.",
            "Rename one of them by hand first.",
        )
    yield from _renamed(changes)


def _renamed(changes: list[Renaming]) -> Iterator[Event]:
    """By way of a name of its own for each, as two folders may swap names."""
    done: list[tuple[Path, Path]] = []
    try:
        for number, renaming in enumerate(changes):
            between = renaming.folder.with_name(f".kit-{number}-{renaming.target.name}")
            renaming.folder.rename(between)
            done.append((renaming.folder, between))
        for renaming, (_, between) in zip(changes, tuple(done), strict=True):
            between.rename(renaming.target)
            done.append((between, renaming.target))
    except OSError as error:
        for before, after in reversed(done):
            after.rename(before)
        raise OutputError(
            f"The folders cannot be renamed: {error.strerror or error}.",
            "Every folder has its old name again.",
            "Close programs that use them, and see that you may write there.",
        ) from error
    for renaming in changes:  # told at the end: whoever leaves in between must not leave a half
        yield Noticed(f"{renaming.folder.name} is now {renaming.target.name}")


def _files(path: str, name: str, target: Path) -> tuple[Path, ...]:
    """The images of a folder with their captions, if the target can take them."""
    folder = path_of(path)
    if not folder.is_dir():
        raise DatasetError(f"{name} = {folder} is no folder.", do="Correct its path.")
    source, new = resolved(folder), resolved(target)
    if new == source or new.is_relative_to(source) or source.is_relative_to(new):
        raise DatasetError(
            f"{name} = {folder} and the new folder {target} lie inside each other.",
            "Images are copied, and what is copied must not grow while it is read.",
            "Choose a destination elsewhere.",
        )
    if target.exists():
        raise OutputError(
            f"{target} is there already, and nothing is replaced.",
            "It may be from an earlier arrangement.",
            "Choose another destination, or move that folder away.",
        )
    images = image_files(folder)
    if not images:
        raise DatasetError(
            f"No images lie directly in {name} = {folder}.",
            READABLE,
            "Name the folder that holds the images themselves.",
        )
    captions = [image.with_suffix(ending) for image in images for ending in CAPTION_EXTENSIONS]
    return (*images, *(dict.fromkeys(path for path in captions if path.is_file())))
