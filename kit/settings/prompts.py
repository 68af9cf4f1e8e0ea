"""Sample prompts in kohya's line format."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import SettingsError

OPTION = re.compile(r"\s--(?=[a-zA-Z])")


@dataclass(frozen=True)
class Prompt:
    """One picture to draw. None: the size trained at, or a seed drawn from the run's."""

    text: str
    negative: str = ""
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    scale: float = 7.5
    steps: int = 30


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "n": ("negative", str, "text"),
    "w": ("width", int, "a whole number of pixels"),
    "h": ("height", int, "a whole number of pixels"),
    "d": ("seed", int, "a whole number"),
    "l": ("scale", _finite, "a number"),
    "s": ("steps", int, "a whole number"),
}


def prompt_lines(sample_prompts: str) -> dict[int, str]:
    """The lines that are prompts by their number, from 1, in the field or in the file it names.

    Raises: SettingsError where it names a file that is not there.
    """
    text = sample_prompts.strip()
    if text.lower().endswith(".txt") and "\n" not in text:
        try:
            text = Path(text).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SettingsError(
                [
                    f"[samples] sample_prompts: {text} cannot be read: {reason}; give a .txt file "
                    "or prompts"
                ]
            ) from error
    lines = enumerate((line.strip() for line in text.splitlines()), start=1)
    return {number: line for number, line in lines if line and not line.startswith("#")}


def parse_prompts(sample_prompts: str) -> tuple[Prompt, ...]:
    """Every prompt of the field.

    Raises: SettingsError with every line that cannot be read.
    """
    prompts, problems = [], []
    for number, line in prompt_lines(sample_prompts).items():
        try:
            prompts.append(parse_prompt(line))
        except ValueError as error:
            problems.append(f"[samples] sample_prompts, line {number}: {error}")
    if problems:
        raise SettingsError(problems)
    return tuple(prompts)


def parse_prompt(line: str) -> Prompt:
    """One line, e.g. `a zib ball --n blurry --w 512 --d 7`.

    Raises: ValueError naming the option that cannot be read.
    """
    text, *options = OPTION.split(f" {line.strip()}")
    values: dict[str, Any] = {}
    for option in options:
        letter, _, value = option.strip().partition(" ")
        if letter.lower() not in OPTIONS:
            possible = ", ".join(f"--{known}" for known in OPTIONS)
            raise ValueError(f"--{letter} is no option; there are {possible}")
        name, convert, kind = OPTIONS[letter.lower()]
        try:
            values[name] = convert(value.strip())
        except ValueError:
            raise ValueError(f"--{letter} {value.strip()!r} is not {kind}") from None
    return _bounded(Prompt(text.strip(), **values))


def _bounded(prompt: Prompt) -> Prompt:
    """Sizes rounded down to a multiple of 8, at least 64; steps from 1 to 1000 (the reference)."""

    def side(pixels: int | None) -> int | None:
        return None if pixels is None else max(64, pixels // 8 * 8)

    return Prompt(
        prompt.text,
        prompt.negative,
        side(prompt.width),
        side(prompt.height),
        prompt.seed,
        prompt.scale,
        min(1000, max(1, prompt.steps)),
    )
