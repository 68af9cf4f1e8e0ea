"""Where an effect may show: each observer looks at one thing, and returns all that it saw of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kit import planning
from kit.errors import KitError
from kit.events import Validated
from kit.families import TextEmbeds
from kit.lorafile.tensors import read_header, read_lora
from kit.settings import Settings
from kit.training.preparation import Resources
from kit.training.step import run_step
from tests.effects.stage import Stage
from tests.support.parts import outcome
from tests.support.toys import run

BATCHES, STEPS = 4, 3
NO_TEXT = TextEmbeds(torch.empty(0))  # where tokens are encoded at each step
STAMP = re.compile(r"_\d{14}")  # the time of day in a sample's name
TIMES = re.compile(r"ss_session_id|ss_training_\w+_at|modelspec\.date|lorakit_settings")


def plan(stage: Stage, settings: Settings) -> Any:
    """What the plan derives: images, buckets, steps, when files and samples are due."""
    planned = planning.plan(settings)
    numbers = json.loads(planned.to_json())
    for name in ("notices", "output", "seed"):
        del numbers[name]
    images = [(i.path.name, i.caption, i.repeats, i.is_reg) for i in planned.images]
    windows = [list(planned.micro_steps(step)) for step in range(1, planned.total_steps + 1)]
    return numbers, images, planned.fits, planned.layout.buckets, windows, planned.prompts


def batch(stage: Stage, settings: Settings) -> Any:
    """The first batches: everything that a backward pass reads."""
    with stage.prepared(settings) as ready:
        return [_all_of(ready, ready.batch_builder.batch(n)) for n in range(BATCHES)]


def _all_of(ready: Resources, made: Any) -> Any:
    read = ready.family.condition(made.text_embeds or NO_TEXT, made.crops_B6)
    words = made.text_embeds and (made.text_embeds.hidden_BND, made.text_embeds.pooled_BP)
    return {**vars(made), "crops_B6": read.time_ids_B6, "text_embeds": words}


def loss(stage: Stage, settings: Settings) -> Any:
    """The losses of the first batches, before anything is learned."""
    with stage.prepared(settings) as ready, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            ready.training_step.loss(ready.batch_builder.batch(n)).mean() for n in range(BATCHES)
        ]


def weights(stage: Stage, settings: Settings) -> Any:
    """The LoRA after the first steps."""
    with stage.prepared(settings) as ready:
        for step in range(1, STEPS + 1):
            run_step(
                ready.training_step,
                ready.batch_builder.micro_batches(step),
                count=len(ready.plan.micro_steps(step)),
            )
        return ready.network.tensors()


def network(stage: Stage, settings: Settings) -> Any:
    """Adapters with their weights, and which of them learn; or why they cannot be made."""
    try:
        with stage.prepared(settings) as ready:
            learns = {name: p.requires_grad for name, p in ready.network.named_parameters()}
            return ready.network.tensors(), learns
    except KitError as error:
        return str(error)


def rates(stage: Stage, settings: Settings) -> Any:
    """The rate of every group at every step."""
    with stage.prepared(settings) as ready:
        told = []
        for step in range(1, ready.plan.total_steps + 1):
            told.append(ready.begin(step))
            ready.optimization.optimizer.step()
            ready.optimization.scheduler.step()
        return told


def optimizer(stage: Stage, settings: Settings) -> Any:
    """The optimizer's class, and its groups' options."""
    with stage.prepared(settings) as ready:
        inner = getattr(ready.optimization.optimizer, "optimizer", ready.optimization.optimizer)
        return [type(inner).__name__] + [
            {name: value for name, value in group.items() if name != "params"}
            for group in inner.param_groups
        ]


def file(stage: Stage, settings: Settings) -> Any:
    """One LoRA file: where it lies, its tensors, and what it says about itself."""
    with stage.prepared(settings) as ready:
        path = ready.plan.run.file("")
        ready.checkpoint.write_file(path, 1, 1)
    held = read_lora(path)
    told = {} if path.suffix != ".safetensors" else read_header(path).metadata
    told = {name: value for name, value in told.items() if not TIMES.fullmatch(name)}
    return path.parent.name, path.name, held.tensors, told


def metadata(stage: Stage, settings: Settings) -> Any:
    """What a LoRA file says about itself, but for the hashes of its tensors."""
    told: dict[str, str] = file(stage, settings)[3]
    return {name: value for name, value in told.items() if not name.startswith("sshs_")}


def files(stage: Stage, settings: Settings) -> Any:
    """The names of all files of a whole run, but for its own folder."""
    run(settings)
    return _listed(Path(settings.folders.output_dir))


def _listed(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.as_posix() for path in paths if not path.parts[0].endswith(".run")]
    return [STAMP.sub("", name) for name in names]


def samples(stage: Stage, settings: Settings) -> Any:
    """The pictures that are drawn before the first step."""
    with stage.prepared(settings) as ready:
        _, events = outcome(ready.samples.write(0, epoch=0))
    drawn = [(event.prompt, event.seed, np.asarray(Image.open(event.path))) for event in events]
    return [(prompt, seed, torch.from_numpy(pixels.copy())) for prompt, seed, pixels in drawn]


def validated(stage: Stage, settings: Settings) -> Any:
    """What each validation of a whole run tells, but for the time it takes."""
    told = [vars(event) for event in run(settings) if isinstance(event, Validated)]
    return [{name: v for name, v in each.items() if name != "seconds"} for each in told]


def validated_at(stage: Stage, settings: Settings) -> Any:
    """The steps after which a whole run is validated."""
    return [event.step for event in run(settings) if isinstance(event, Validated)]


def error(stage: Stage, settings: Settings) -> Any:
    """What is refused, in the words that are told; None where all is prepared."""
    try:
        with stage.prepared(settings):
            return None
    except KitError as refused:
        return str(refused)
