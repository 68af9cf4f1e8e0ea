"""Rules about sample prompts."""

from __future__ import annotations

from collections.abc import Iterator

from kit.errors import SettingsError
from kit.settings import Samples
from kit.settings.prompts import options_twice, parse_prompts, skipped_because
from kit.settings.rules.rule import (
    Changed,
    Idle,
    RunLength,
    idle,
    notice,
    problem,
    turns_that_never_come,
)


@problem
def prompts(samples: Samples) -> Iterator[str]:
    try:
        parse_prompts(samples.sample_prompts)
    except SettingsError as error:
        yield from error.problems


@problem
def samples_without_prompts(samples: Samples) -> Iterator[str]:
    every = samples.sample_every_n_steps or samples.sample_every_n_epochs
    if (samples.sample_at_first or every) and not samples.sample_prompts.strip():
        yield (
            "[samples] sample_prompts: samples are asked for, but there is no prompt; write one "
            "per line"
        )


@idle
def sample_steps_unused(samples: Samples) -> Iterator[Idle]:
    if samples.sample_every_n_epochs:
        yield Idle("sample_every_n_epochs is set", "sample_every_n_steps")


@notice
def prompts_never_drawn(samples: Samples) -> Iterator[str]:
    asked = samples.sample_at_first or samples.sample_every_n_steps or samples.sample_every_n_epochs
    if samples.sample_prompts.strip() and not asked:
        yield (
            "sample_prompts are drawn only when you ask for them while it trains; set "
            "sample_every_n_epochs or sample_every_n_steps to draw them by themselves"
        )


@notice
def options_skipped(samples: Samples) -> Iterator[str]:
    try:
        found = parse_prompts(samples.sample_prompts)
    except SettingsError:
        return  # a problem, which `prompts` tells
    names = dict.fromkeys(name for prompt in found for name in prompt.skipped)
    if names:
        yield f"sample_prompts: {', '.join(names)} {skipped_because(len(names))}"


@notice
def options_given_twice(samples: Samples) -> Iterator[str]:
    try:
        yield from options_twice(samples.sample_prompts)
    except SettingsError:
        return  # a problem, which `prompts` tells


@notice
def sampler_of_none(samples: Samples, changed: Changed) -> Iterator[str]:
    if "sample_sampler" not in changed:
        return
    try:
        found = parse_prompts(samples.sample_prompts)
    except SettingsError:
        return  # a problem, which `prompts` tells
    if not found:
        yield "sample_sampler draws nothing by itself: sample_prompts is blank"
    elif all(prompt.sampler for prompt in found):
        yield "sample_sampler draws none of the prompts: each names its own (--ss)"


@notice
def never_drawn(samples: Samples, length: RunLength) -> Iterator[str]:
    epochs, steps = samples.sample_every_n_epochs, samples.sample_every_n_steps
    yield from turns_that_never_come(
        length,
        {"sample_every_n_epochs": epochs},
        {} if epochs else {"sample_every_n_steps": steps},
    )
