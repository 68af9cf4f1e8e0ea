"""The questions of the tools that prepare a data set, for their forms and commands."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError, field_validator

from kit.errors import SettingsError
from kit.settings import in_words
from kit.settings.folders import FORBIDDEN
from kit.settings.setting import Section, setting

Kind = TypeVar("Kind", bound=Section)


class Arrangement(Section, box="Dataset Preparation / Folder preparation"):
    """Which images are copied into the folders that a training expects."""

    instance_prompt: str = setting(
        "",
        "Instance prompt",
        "The trigger word: a rare word that stands for the subject. It begins the folder's name.",
        gui=None,
    )
    class_prompt: str = setting(
        "",
        "Class prompt",
        "What the subject is, such as cat. With the trigger word it is the caption of images "
        "without a caption file.",
        gui=None,
    )
    training_images: str = setting(
        "",
        "Training images",
        "The folder in which the images lie, with their caption files. It is only read.",
        kind="path",
        gui=None,
    )
    training_repeats: int = setting(
        40,
        "Repeats",
        "How often each training image is seen per epoch; the number before the folder's name.",
        between=(1, 100_000),
        gui=None,
    )
    reg_images: str = setting(
        "",
        "Regularisation images",
        "Optional. A folder of images of the class without the subject. It is only read.",
        kind="path",
        gui=None,
    )
    reg_repeats: int = setting(
        1,
        "Repeats of regularisation images",
        "The number before the regularisation folder's name. 0: they are not copied.",
        between=(0, 100_000),
        gui=None,
    )
    destination: str = setting(
        "",
        "Destination training directory",
        "Where img, reg, log and model are made. What lies there already is never replaced.",
        kind="path",
        gui=None,
    )

    @field_validator("instance_prompt", "class_prompt")
    @classmethod
    def _is_part_of_a_name(cls, value: str) -> str:
        bad = sorted(set(value) & set(FORBIDDEN))
        if bad:
            raise ValueError(
                f"{value!r} becomes part of a folder's name; leave out {' '.join(bad)}"
            )
        return " ".join(value.split())


class Balance(Section, box="Dataset Preparation / Dataset balancing"):
    """How often the images of each folder should be seen."""

    dataset_folder: str = setting(
        "",
        "Dataset folder",
        "The folder that holds the <repeats>_<word> folders.",
        kind="path",
        gui=None,
    )
    views: int = setting(
        1000,
        "Training steps per concept per epoch",
        "How often the images of a folder are seen in an epoch, all together; its repeats become "
        "this number divided by its images.",
        between=(1, 10_000_000),
        gui=None,
    )
    rename: bool = setting(
        False,
        "Rename",
        "Rename the folders. Off: only say what they would be called.",
        gui=None,
    )
    all_folders: bool = setting(
        False,
        "Insecure folder renaming",
        "Also folders whose name does not begin with a number of repeats.",
        gui=None,
    )


def filled(kind: type[Kind], **values: Any) -> Kind:
    """A tool's questions with these answers.

    Raises: SettingsError with everything that is wrong at once.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        name = kind.__name__.removesuffix("Settings").lower()
        raise SettingsError([in_words(name, kind, e) for e in error.errors()]) from error
