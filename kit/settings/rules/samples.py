"""Rules about sample prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit.errors import SettingsError
from kit.settings.prompts import parse_prompts

if TYPE_CHECKING:
    from kit.settings import Settings


def _prompts(settings: Settings) -> Iterator[str]:
    try:
        parse_prompts(settings.samples.sample_prompts)
    except SettingsError as error:
        yield from error.problems


def _samples_without_prompts(settings: Settings) -> Iterator[str]:
    samples = settings.samples
    every = samples.sample_every_n_steps or samples.sample_every_n_epochs
    if (samples.sample_at_first or every) and not samples.sample_prompts.strip():
        yield (
            "[samples] sample_prompts: samples are asked for, but there is no prompt; write one "
            "per line"
        )


def _sample_steps_unused(settings: Settings) -> Iterator[str]:
    samples = settings.samples
    if samples.sample_every_n_steps and samples.sample_every_n_epochs:
        yield "sample_every_n_steps has no effect: sample_every_n_epochs is set"


def _prompts_never_drawn(settings: Settings) -> Iterator[str]:
    samples = settings.samples
    asked = samples.sample_at_first or samples.sample_every_n_steps or samples.sample_every_n_epochs
    if samples.sample_prompts.strip() and not asked:
        yield (
            "sample_prompts has no effect: set sample_every_n_epochs or sample_every_n_steps to "
            "draw them"
        )


def _options_skipped(settings: Settings) -> Iterator[str]:
    try:
        prompts = parse_prompts(settings.samples.sample_prompts)
    except SettingsError:
        return  # a problem, which `_prompts` tells
    names = dict.fromkeys(name for prompt in prompts for name in prompt.skipped)
    if names:
        yield f"sample_prompts: {', '.join(names)} {skipped_because(len(names))}"


def skipped_because(count: int) -> str:
    """Why so many options of a prompt are left out."""
    verb, noun = ("has", "it belongs") if count == 1 else ("have", "they belong")
    return f"{verb} no effect: {noun} to other model families or to a ControlNet"


PROBLEMS = (_prompts, _samples_without_prompts)
NOTICES = (_sample_steps_unused, _prompts_never_drawn, _options_skipped)
