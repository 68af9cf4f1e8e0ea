"""Pictures of the class word that the bare base draws itself, as stills beside the others.

They are drawn before the first step, and again, the same ones, when a run goes on. Of several
processes the first one draws, or all where the base is sharded; all ask about what it drew.

Shapes: B pictures, C latent channels, h w latent height and width.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kit.adapters.network import Network
from kit.caching.latents import Latent
from kit.dataset.images import TrainImage
from kit.devices import free_memory
from kit.diffusion.inpainting import takes_inpaint_cond
from kit.errors import FAILURES, ProcessLost, in_a_line
from kit.events import Cached, Event, Noticed
from kit.settings.prompts import Prompt
from kit.training.ranks import Ranks
from kit.training.sampling import SamplePipeline, seeded
from kit.training.stills import Stills, switched_off
from kit.validation.class_word import SCALE, STEPS
from kit.validation.questions import questions

LIKE = Prompt("", steps=STEPS, scale=SCALE)  # how they are drawn, at the size that is trained
WHAT = "pictures of the class word"
WITHOUT = "so validation asks about no picture that the bare base model draws itself"


def ask_about_drawn(
    stills: Stills, pipeline: SamplePipeline, network: Network, ranks: Ranks
) -> Generator[Event, None, None]:
    """Draw what the plan's validation names, without the network, and ask about it from now on.

    What cannot be drawn is told; the run goes on without it.
    """
    plan = stills.builder.plan
    captions = plan.validation.drawn
    if takes_inpaint_cond(pipeline.family):
        yield Noticed(f"an inpainting model draws into other pictures, {WITHOUT}")
        return
    if not captions:
        yield Noticed(
            "neither captions nor folders name anything beside the subject's own word, such as the "
            f"class in 10_zib ball, {WITHOUT}"
        )
        return
    address = (plan.settings.validation.from_seed, "class word")
    prompts = seeded(captions, LIKE, plan.size, address=address)
    latents = None
    if ranks.is_first or ranks.is_sharded:
        latents = yield from _drawn(pipeline, prompts, network, ranks)
    latents = ranks.spread(latents)
    if latents is not None:
        add_drawn(stills, prompts, latents)


def _drawn(
    pipeline: SamplePipeline, prompts: Sequence[Prompt], network: Network, ranks: Ranks
) -> Generator[Event, None, Tensor | None]:
    """Their latents, one at a time; None where that failed, which is told."""
    done = 0
    try:
        with network.eval_mode(), switched_off(network):
            work = pipeline.each_latent(prompts, rows=1)
            while True:
                try:
                    with ranks.abreast(passes=(StopIteration,)):
                        done += next(work)
                except StopIteration as end:
                    return _sound(end.value)
                yield Cached(WHAT, done, len(prompts))
    except ProcessLost:
        raise
    except FAILURES as error:
        free_memory()
        yield Noticed(f"{WHAT} could not be drawn, {WITHOUT}: {in_a_line(error)}")
    return None


def _sound(latents_BChw: Tensor) -> Tensor:
    if not torch.isfinite(latents_BChw).all():
        raise ValueError("the base model drew what is not finite")
    return latents_BChw


def add_drawn(stills: Stills, prompts: Sequence[Prompt], latents_BChw: Tensor) -> None:
    """Ask about what was drawn for these prompts, of one size, from now on; unscaled latents."""
    builder = stills.builder
    width, height = prompts[0].width or 0, prompts[0].height or 0
    plan, first = builder.plan, len(builder.plan.images)
    images = [
        TrainImage(Path(f"{number}.png"), width, height, prompt.text, "class word", 1)
        for number, prompt in enumerate(prompts)
    ]
    numbers = range(first, first + len(images))
    crop = (height, width, 0, 0, height, width)
    latents = {
        number: Latent(mean_Chw, torch.full_like(mean_Chw, -math.inf), crop)
        for number, mean_Chw in zip(numbers, latents_BChw, strict=True)
    }
    noise = plan.settings.noise
    stills.add(images, latents)
    stills.prior = questions(
        (*plan.images, *images),
        numbers,
        seed=plan.settings.validation.from_seed,
        least=noise.min_timestep,
        end=noise.max_timestep,
        most=plan.validation.most,
    )
