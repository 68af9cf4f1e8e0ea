"""What the start fills in as it is answered, and what it takes back when the example is left.

It follows the answers as long as nothing else has filled the form: what a file, a preset or a
person says is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kit.basemodel.mismatches import known_of
from kit.dataset.files import image_files
from kit.errors import Unreadable
from kit.hosts import gpu, host
from kit.reading.paths import path_of, shortened
from kit.settings import Model, declarations
from kit.ui.form.field import Field, as_text
from kit.ui.form.remembered import example_values
from kit.ui.start.answers import Answers, Filled, example_left, preset_for, wanted
from kit.ui.start.device import precisions
from kit.ui.start.models import values_of
from kit.ui.start.start import MODEL, PICTURES, Start

EXAMPLE_ANSWERS = Answers("subject", "zib", "ball")


class Autofill:
    """Keeps the fields in step with the start's answers."""

    def __init__(self, fields: Mapping[str, Field], start: Start) -> None:
        self._fields, self._start = fields, start
        self.is_following = False
        self.filled = Filled(self._is_default, self._holds)
        self._folder = self._text(PICTURES)

    def follow(self) -> str:
        """Fill in what the answers ask for; returns what was done, for Undo, or ""."""
        before, self._folder = self._folder, self._text(PICTURES)
        is_left = before == example_values()[PICTURES] != self._folder
        if is_left and self._folder:
            self.leave_example()
            self.is_following = True
        told = "own pictures in place of the example" if is_left and self._folder else ""
        if not self.is_following:
            self._start.say("")
            return told
        changes = self.filled.changes(self._wanted())
        for name, value in changes.items():
            self._fields[name].value = value
        self._say()
        return told or ("the answers above" if changes else "")

    def leave_example(self) -> None:
        """Take back whatever is still the example's, the start's answers included."""
        now = {name: self._fields[name].value for name in self._fields}
        shown = example_values()
        for name in declarations():
            if isinstance(shown[name], int | float) and self._holds(name, shown[name]):
                now[name] = shown[name]
        for name in list(example_left(now, shown)):
            self._fields[name].value = declarations()[name].default
        if self._start.answers == EXAMPLE_ANSWERS:
            self._start.answers = Answers()
        self.filled.values = {}

    def holds_example(self) -> bool:
        """The image folder is the example's."""
        return self._text(PICTURES) == example_values()[PICTURES]

    def family(self) -> str:
        """The base model's family, "" where it is not known."""
        known = known_of(self._model())
        return known.family if known else self._claimed()

    def missing(self) -> str:
        """What is to be answered before a training can begin, in a sentence; "" for nothing."""
        needs = ["a base model (2)"] * (not self._text(MODEL))
        if not self._text(PICTURES) and not self._text("dataset_config"):
            needs.append("pictures (3)")
        return f"Still to choose: {' and '.join(needs)}." if needs else ""

    def wordless(self, pictures: int) -> str:
        """What a blank trigger word means for so many pictures without words; "" for nothing."""
        if not pictures or not self.is_following or self._start.answers.words:
            return ""
        which = "the picture trains" if pictures == 1 else f"{pictures} pictures train"
        return f"Still to type: a trigger word (1), else {which} without any words."

    def unspoken(self, captions: Sequence[str]) -> str:
        """How many of the pictures' captions lack the trigger word, in a sentence; "" for none.

        A folder is named by the words only in the session that received its pictures; changed
        later, a trigger word would name the file and the prompts, and be learned by no picture.
        """
        word = self._start.answers.trigger_word
        framed = f"{self._text('caption_prefix')} {self._text('caption_suffix')}"
        if not word or _says(framed, word):
            return ""
        others = [text for text in captions if not _says(text, word)]
        if not others:
            return ""
        which = "1 picture learns" if len(others) == 1 else f"{len(others)} pictures learn"
        shown = shortened(" / ".join(others[0].splitlines()))
        told = f'the caption of the first is "{shown}"' if shown else "the first has no caption"
        return (
            f'{which} without the trigger word "{shortened(word)}": {told}. '
            "All captions (3) adds it."
        )

    def _wanted(self) -> dict[str, Any]:
        found, family = gpu(), self.family()
        of_model = values_of(self._model())
        if precisions()[-1] == "no" and self._text(MODEL):
            of_model["mixed_precision"] = "no"
        values = wanted(
            self._start.answers,
            family=family,
            megabytes=found.megabytes if found else None,
            flat_pictures=self._flat_pictures(),
            of_model=of_model,
        )
        place = str(host().output_folder)
        is_usual = place == declarations()["output_dir"].default
        return values if is_usual else {**values, "output_dir": place}

    def _model(self) -> Model:
        return Model(pretrained_model_name_or_path=self._text(MODEL))

    def _claimed(self) -> str:
        """The family of a model that is not here, as the person says it."""
        return self._start.answers.family if self._text(MODEL) else ""

    def _flat_pictures(self) -> int:
        """Pictures that lie directly in the image folder."""
        text = self._text(PICTURES)
        try:
            return len(image_files(path_of(text))) if text else 0
        except (OSError, Unreadable):  # no folder, or not to be read: the plan tells
            return 0

    def _say(self) -> None:
        family, found = self.family(), gpu()
        if not family:
            self._start.say("")
            return
        name = preset_for(self._start.answers, family, found.megabytes if found else None)
        kept = [declarations()[each].label for each in self.filled.by_hand()]
        told = f"Filled in from the preset {name}"
        told += f"; your own values stay: {', '.join(kept)}." if kept else "."
        self._start.say(told)

    def _text(self, name: str) -> str:
        return str(self._fields[name].value).strip()

    def _is_default(self, name: str) -> bool:
        return not self._fields[name].is_changed

    def _holds(self, name: str, value: Any) -> bool:
        """1e-4 typed is 0.0001 filled in."""
        now = self._fields[name].value
        if not isinstance(now, str) or isinstance(value, str) or value is None:
            return bool(now == (as_text(value) if isinstance(now, str) else value))
        try:
            return float(now) == float(value)
        except ValueError:
            return False


def _says(caption: str, word: str) -> bool:
    """Whether the words stand in it, in capitals or not."""
    return word.casefold() in caption.casefold()
