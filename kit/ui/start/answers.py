"""Answers to the three questions as settings: a preset for aim, family and card, names, prompts.

No widgets. What a person has set by hand is not this file's to know: `Filled` keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kit.presets import presets
from kit.settings import declarations

GOALS = {"a person or thing": "subject", "a style": "style", "a concept": "concept"}
USES_AN_EPOCH = 240  # of a flat folder's pictures, with repeats: with a preset 60 updates
MOST_REPEATS = 40  # one picture seen 400 times in a preset's ten epochs is learned by heart
PROMPTS = {
    "subject": ("a photo of {words}", "{words} in a forest, in the morning light"),
    "style": ("a house by a lake, {words}", "portrait of an old woman, {words}"),
    "concept": ("a photo of a person, {words}", "two people in a park, {words}"),
}
SAMPLE_EVERY = 2  # epochs
LONGEST_NAME = 40  # characters of a trigger word that name the file
NO_NAME = re.compile(r"[^\w.-]+")  # what a file's name is better without


@dataclass(frozen=True)
class Answers:
    """What the start asks for beside the settings' own fields (model, image folder)."""

    goal: str = "subject"
    trigger_word: str = ""
    class_word: str = ""
    family: str = ""  # of a base model that is not here yet, where the person knows it

    @property
    def words(self) -> str:
        """What a caption says of the subject: `zxdog dog`."""
        return " ".join(f"{self.trigger_word} {self.class_word}".split())


def card_for(megabytes: int | None) -> str:
    """The presets' name for a GPU of this memory; None: no GPU, as the smallest."""
    if megabytes is None or megabytes < 14_500:
        return "8gb"
    return "16gb" if megabytes < 23_000 else "24gb"


def preset_for(answers: Answers, family: str, megabytes: int | None) -> str:
    """The preset's name for these answers, e.g. sdxl-style-16gb."""
    return f"{family}-{answers.goal}-{card_for(megabytes)}"


def repeats_for(pictures: int) -> int:
    """Repeats of a flat folder: few pictures are seen more often, about 240 uses an epoch."""
    return max(1, min(MOST_REPEATS, round(USES_AN_EPOCH / max(1, pictures))))


def wanted(
    answers: Answers,
    *,
    family: str,
    megabytes: int | None,
    flat_pictures: int,
    of_model: Mapping[str, Any],
) -> dict[str, Any]:
    """Values by setting.

    family: of the base model, "" where it is not known yet: then no preset. megabytes: of the GPU,
    None without one. flat_pictures: how many lie directly in the image folder. of_model: what
    belongs to the base model, such as its resolution, and the precision that this machine has; it
    counts more than the preset.
    """
    values: dict[str, Any] = {}
    if family:
        values |= presets()[preset_for(answers, family, megabytes)].values
    values |= of_model
    if flat_pictures:
        values["dataset_repeats"] = repeats_for(flat_pictures)
    if answers.words:
        values["sample_prompts"] = "\n".join(
            line.format(words=answers.words) for line in PROMPTS[answers.goal]
        )
        values["sample_every_n_epochs"] = SAMPLE_EVERY
        values["sample_at_first"] = True  # what the model draws without the LoRA, to compare
        if name := NO_NAME.sub("-", answers.trigger_word.strip())[:LONGEST_NAME].strip(".-"):
            values["output_name"] = name
    return values


class Filled:
    """What the start has filled in: it may change only that, and what is still a default."""

    def __init__(
        self, is_default: Callable[[str], bool], holds: Callable[[str, Any], bool]
    ) -> None:
        """is_default(setting) and holds(setting, value): what stands in the form."""
        self._is_default, self._holds = is_default, holds
        self.values: dict[str, Any] = {}

    def changes(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What to fill in for these values; what is wanted no more goes back to its default."""
        back = {name: declarations()[name].default for name in self.values if name not in values}
        found = {
            name: value
            for name, value in {**back, **values}.items()
            if self._may_change(name) and not self._holds(name, value)
        }
        self.values = dict(values)
        return found

    def by_hand(self) -> list[str]:
        """The settings that hold something else than what was filled in."""
        return [name for name, value in self.values.items() if not self._holds(name, value)]

    def _may_change(self, name: str) -> bool:
        if self._is_default(name) and name not in self.values:
            return True
        return name in self.values and self._holds(name, self.values[name])


def example_left(
    now: Mapping[str, Any], example: Mapping[str, Any], *, but: str = ""
) -> Iterator[str]:
    """The settings that still hold what the example brought; but: one that is left out."""
    for name, declared in declarations().items():
        if name != but and now[name] == example[name] != declared.default:
            yield name
