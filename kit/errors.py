"""Errors that a person can put right.

    KitError
    ├── SettingsError    one or more settings are wrong or contradict each other
    ├── DatasetError     images, captions or folders
    ├── ModelError       the base model's file, folder or Hub id
    ├── LoraFileError    a LoRA file that cannot be read or does not fit
    ├── OutputError      a place that cannot be written
    ├── DeviceError      the machine lacks what a setting asks for
    ├── Diverged         loss, gradient or weights are not finite, or explode, too often
    ├── ProcessLost      of several processes that train together one failed, ended or hangs
    ├── Unreadable       a text, JSON, TOML or path that is not what it should be
    └── MissingPackage   an optional package is not installed

A message has three parts: what was found (with the name of the setting or file), what is possible,
and what to do. Bugs are not KitErrors: they keep their traceback.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pickle import UnpicklingError

SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACE_TOKEN",
    "WANDB_API_KEY",
    "CIVITAI_TOKEN",
)
SHORTEST = 6  # characters of a token


class KitError(Exception):
    """Something the user can change."""

    def __init__(self, found: str, possible: str = "", do: str = "") -> None:
        self.found, self.possible, self.do = found, possible, do
        super().__init__("\n".join(part for part in (found, possible, do) if part))


class SettingsError(KitError):
    """Settings that are wrong or contradict each other; carries all of them at once."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "1 setting needs a change:" if count == 1 else f"{count} settings need a change:"
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))


class DatasetError(KitError):
    """Images, captions or their folders."""


class ModelError(KitError):
    """The base model's file, folder or Hub id."""


class LoraFileError(KitError):
    """A LoRA file that cannot be read or does not fit."""


class OutputError(KitError):
    """A place that cannot be written."""


class DeviceError(KitError):
    """The machine lacks what a setting asks for."""


class Diverged(KitError):
    """Loss, gradient or weights are not finite, or explode, more often than may be skipped."""


class ProcessLost(KitError):
    """Of several processes that train together one failed, was killed, or hangs."""


class Unreadable(KitError):
    """A text, JSON, TOML or path that is not what it should be; `kit.reading` raises it.

    what, why: the sentence's two halves, "run.json" and "is no JSON (...)", to be told anew by
    whoever knows which setting asked for it.
    """

    def __init__(self, what: object, why: str, possible: str = "", do: str = "") -> None:
        self.what, self.why = str(what), why
        super().__init__(f"{what} {why}.", possible, do)


class MissingPackage(KitError):
    """An optional package is not installed."""


def in_a_line(error: BaseException) -> str:
    """What an error says, for a notice: a KitError whole, of others the first line.

    torch's advice to read a pickle with weights_only=False, so that it may run what it wants, is
    never passed on.
    """
    if isinstance(error, KitError):
        return " ".join(str(error).split("\n"))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = str(error).strip()
    if (
        isinstance(error, UnpicklingError)
        or "weights_only" in text
        or "weights only" in text.lower()
    ):
        return "it is damaged, or holds something else than tensors"
    return (text or type(error).__name__).splitlines()[0]


def nearest(name: str, names: Iterable[str]) -> str:
    """`"; did you mean X?"` for the most similar name, whatever its case, or an empty string."""
    as_written = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), list(as_written), n=1, cutoff=0.6)
    return f"; did you mean {as_written[close[0]]}?" if close else ""


_of_links: set[str] = set()  # tokens that links carried, in this process


def keep_secret(value: str) -> None:
    """Blot this out, too, wherever secrets are; what is shorter than a token would hit words."""
    if len(value) >= SHORTEST:
        _of_links.add(value)


def without_secrets(text: object) -> str:
    """The text, with tokens of the environment and of links blotted out."""
    plain = str(text)
    for value in (*(os.environ.get(name, "") for name in SECRETS), *_of_links):
        plain = plain.replace(value, "***") if value else plain
    return plain


# What drawing and measuring beside the training may raise: told, and the run goes on.
FAILURES = (KitError, OSError, RuntimeError, ValueError, MemoryError)
