"""Sample prompts in kohya's formats: lines with options, and files of lines, TOML or JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit import catalog
from kit.errors import SettingsError, Unreadable
from kit.reading.fields import kind_of
from kit.reading.paths import path_of
from kit.reading.texts import from_json, from_toml, read_text

OPTION = re.compile(r"\s--(?=[a-zA-Z])")
FILES = (".txt", ".toml", ".json")


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
    sampler: str = ""  # blank: sample_sampler
    skipped: tuple[str, ...] = field(default=(), compare=False)  # options that mean nothing here


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _sampler(text: str) -> str:
    name = text.lower()
    if name not in catalog.SAMPLERS:
        raise ValueError(text)
    return name


Option = tuple[str, Callable[[str], Any], str]
OPTIONS: dict[str, Option] = {
    "n": ("negative", str, "text"),
    "w": ("width", int, "a whole number of pixels"),
    "h": ("height", int, "a whole number of pixels"),
    "d": ("seed", int, "a whole number"),
    "l": ("scale", _finite, "a number"),
    "s": ("steps", int, "a whole number"),
    "ss": ("sampler", _sampler, f"a sampler; there are {', '.join(catalog.SAMPLERS)}"),
}
# What sd-scripts reads for other model families, and for a ControlNet, which a LoRA has none of.
ELSEWHERE = ("g", "ctr", "rcfg", "fs", "cn")
KEYS = {
    "negative_prompt": "n",
    "width": "w",
    "height": "h",
    "seed": "d",
    "scale": "l",
    "sample_steps": "s",
    "sample_sampler": "ss",
}
KEYS_ELSEWHERE = (
    "guidance_scale", "cfg_trunc_ratio", "renorm_cfg", "flow_shift", "controlnet_image",
)  # fmt: skip


def parse_prompts(sample_prompts: str) -> tuple[Prompt, ...]:
    """Every prompt of the field, or of the .txt, .toml or .json file that it names.

    Raises: SettingsError with every prompt that cannot be read, or with the file.
    """
    prompts, problems = [], []
    for place, written in _written(sample_prompts):
        try:
            prompts.append(
                parse_prompt(written) if isinstance(written, str) else _from_keys(written)
            )
        except ValueError as error:
            problems.append(f"[samples] sample_prompts, {place}: {error}")
    if problems:
        raise SettingsError(problems)
    return tuple(prompts)


def parse_prompt(line: str) -> Prompt:
    """One line, e.g. `a zib ball --n blurry --w 512 --d 7`.

    Raises: ValueError naming the option that cannot be read.
    """
    text, *options = OPTION.split(f" {line.strip()}")
    values: dict[str, Any] = {}
    skipped = []
    for option in options:
        letter, _, value = option.strip().partition(" ")
        if letter.lower() in ELSEWHERE:
            skipped.append(f"--{letter.lower()}")
        elif letter.lower() in OPTIONS:
            name, converted = _converted(f"--{letter}", OPTIONS[letter.lower()], value)
            values[name] = converted
        else:
            possible = ", ".join(f"--{known}" for known in OPTIONS)
            raise ValueError(f"--{letter} is no option; there are {possible}")
    return _bounded(Prompt(text.strip(), **values, skipped=tuple(skipped)))


def options_twice(sample_prompts: str) -> Iterator[str]:
    """A sentence for each option that a prompt has twice with two values: the last one counts.

    Raises: SettingsError where the file that is named cannot be read.
    """
    for place, written in _written(sample_prompts):
        if not isinstance(written, str):
            continue
        counts: dict[str, str] = {}
        for option in OPTION.split(f" {written.strip()}")[1:]:
            letter, _, value = option.strip().partition(" ")
            before = counts.setdefault(letter.lower(), value.strip())
            if before != value.strip():
                yield (
                    f"sample_prompts, {place}: --{letter} {before} is not used, for --{letter} "
                    f"{value.strip()} comes after it"
                )
            counts[letter.lower()] = value.strip()


def _from_keys(entries: Mapping[str, Any]) -> Prompt:
    """One prompt of a .toml or .json file; a null is not set.

    Raises: ValueError naming the key that cannot be read.
    """
    values: dict[str, Any] = {}
    skipped = []
    for key, value in entries.items():
        if key in KEYS_ELSEWHERE:
            skipped.append(key)
        elif key == "prompt" and isinstance(value, str):
            values["text"] = value.strip()
        elif key in KEYS and value is not None:
            name, converted = _converted(key, OPTIONS[KEYS[key]], value)
            values[name] = converted
        elif key not in KEYS:
            possible = ", ".join(["prompt", *KEYS])
            what = f"{kind_of(value)} is no text" if key == "prompt" else "is no key of a prompt"
            raise ValueError(f"{key}: {what}; there are {possible}")
    return _bounded(Prompt(**{"text": "", **values}, skipped=tuple(skipped)))


def _converted(written: str, option: Option, value: Any) -> tuple[str, Any]:
    """The field's name and its value."""
    name, convert, kind = option
    plain = value.strip() if isinstance(value, str) else value
    wanted = (str,) if convert is str else (str, int, float)
    try:
        if isinstance(plain, bool) or not isinstance(plain, wanted):
            raise ValueError(plain)
        return name, convert(str(plain))
    except ValueError:
        raise ValueError(f"{written} {plain!r} is not {kind}") from None


def _written(sample_prompts: str) -> Iterator[tuple[str, str | Mapping[str, Any]]]:
    """Each prompt as it is written, with its place in words.

    Raises: SettingsError where it names a file that cannot be read.
    """
    text = sample_prompts.strip()
    ending = Path(text).suffix.lower() if "\n" not in text else ""
    if ending not in FILES:
        yield from _lines(text)
        return
    inside = _read(text)
    if ending == ".txt":
        yield from _lines(inside)
        return
    try:
        entries = _in_toml(inside) if ending == ".toml" else _in_json(inside)
    except Unreadable as error:
        raise SettingsError([f"[samples] sample_prompts: {text} {error.why}"]) from error
    except ValueError as error:
        raise SettingsError(
            [f"[samples] sample_prompts: {text} cannot be read: {error}"]
        ) from error
    for number, entry in enumerate(entries, start=1):
        yield f"{Path(text).name}, prompt {number}", entry


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.strip().startswith("#"):
            yield f"line {number}", line.strip()


def _read(path: str) -> str:
    try:
        return read_text(path_of(path))
    except Unreadable as error:
        raise SettingsError(
            [
                f"[samples] sample_prompts: {error.what} {error.why}; give a "
                f"{', '.join(FILES[:-1])} or {FILES[-1]} file, or prompts"
            ]
        ) from error


def _in_toml(text: str) -> list[Mapping[str, Any]]:
    """`[prompt]` with what all have, and a `[[prompt.subset]]` for each, which counts more."""
    table = from_toml(text, "it").get("prompt")
    subsets = table.get("subset") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not isinstance(subsets, list):
        raise ValueError("it has no [[prompt.subset]]")
    shared = {key: value for key, value in table.items() if key != "subset"}
    return [{**shared, **_table(subset)} for subset in subsets]


def _in_json(text: str) -> list[str | Mapping[str, Any]]:
    """A list of lines, or of objects."""
    entries = from_json(text, "it")
    if not isinstance(entries, list):
        raise ValueError("it is no list of prompts")
    return [entry if isinstance(entry, str) else _table(entry) for entry in entries]


def _table(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{kind_of(entry)} is no prompt: a prompt is a table of keys")
    return entry


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
        prompt.sampler,
        prompt.skipped,
    )


def skipped_because(count: int) -> str:
    """Why so many options of a prompt are left out."""
    verb, noun = ("has", "it belongs") if count == 1 else ("have", "they belong")
    return f"{verb} no effect: {noun} to other model families or to a ControlNet"
