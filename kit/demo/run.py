"""`kit demo`: train a LoRA on the embedded base, show it, and measure it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from kit.adapters.network import attach, parts_of
from kit.basemodel import detect
from kit.demo import BASE, settings
from kit.demo.grading import Grade, grade_subject, grade_vocabulary
from kit.demo.scenes import SIZE
from kit.events import Event, Finished, Sampled
from kit.families import Family, Prediction
from kit.families.loading import load_family
from kit.families.text import TextConditioner
from kit.lorafile import tensors
from kit.planning import plan
from kit.runs.atomic_write import write_atomically
from kit.runs.run import Run
from kit.settings import NetworkSettings
from kit.settings.prompts import Prompt
from kit.sinks import Console, listening
from kit.training.loop import train
from kit.training.sampling import SamplePipeline

OTHERS = 60  # prompts of the vocabulary, drawn with and without the LoRA
SUBJECTS = 40
ZOOM = 3
MARGIN, TITLE = 8, 18


def main(out: Path, *, seed: int = 1, steps: int | None = None) -> int:
    """Train the example into `out`, write loss.png and samples.png, print the checker's figures."""
    began = time.monotonic()
    todo = plan(settings(str(out), seed=seed, steps=steps))
    print(todo, end="\n\n")
    sampled, finished = _train(todo.run, todo.total_steps, train(todo))
    samples = out / "samples.png"
    grid = _grid(sampled, todo.prompts)
    write_atomically(samples, lambda part: grid.save(part, "PNG"))
    print(f"\nLoRA        {finished.path}\nloss curve  {out / 'loss.png'}\npictures    {samples}\n")
    if finished.reason != "done":
        return 0
    _measure(Path(finished.path), todo.seed)
    print(f"\n{time.monotonic() - began:.0f} seconds in all")
    return 0


def _train(run: Run, total_steps: int, events: Iterable[Event]) -> tuple[list[Sampled], Finished]:
    """Live through a run's events: its samples, and its end."""
    sampled: list[Sampled] = []
    finished: list[Finished] = []

    def collect(event: Event) -> None:
        if isinstance(event, Sampled):
            sampled.append(event)
        if isinstance(event, Finished):
            finished.append(event)

    chart = run.output_dir / "loss.png"
    with listening(run, Console(total_steps), collect, chart=chart) as tell:
        for event in events:
            tell(event)
    return sampled, finished[-1]


def _grid(sampled: list[Sampled], prompts: Sequence[Prompt]) -> Image.Image:
    """A row per prompt, a column per step: before, during, after."""
    steps = sorted({event.step for event in sampled})
    side = SIZE * ZOOM
    wide = MARGIN + len(steps) * (side + MARGIN)
    high = TITLE + len(prompts) * (side + MARGIN + TITLE)
    grid = Image.new("RGB", (wide, high), "white")
    pen = ImageDraw.Draw(grid)
    names = {0: "before", steps[-1]: f"after {steps[-1]} steps"}
    for column, step in enumerate(steps):
        pen.text(
            (MARGIN + column * (side + MARGIN), 3), names.get(step, f"step {step}"), fill="black"
        )
    for event in sampled:
        x = MARGIN + steps.index(event.step) * (side + MARGIN)
        y = TITLE + event.index * (side + MARGIN + TITLE)
        with Image.open(event.path) as picture:
            grid.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, y + TITLE))
    for row, prompt in enumerate(prompts):
        pen.text((MARGIN, TITLE + row * (side + MARGIN + TITLE) + 3), prompt.text, fill="black")
    return grid


def _measure(lora: Path, seed: int) -> None:
    """Grade base and LoRA on the same prompts with the same seeds."""
    family = load_family(
        detect(BASE),
        predicts=Prediction.EPSILON,
        device=torch.device("cpu"),
        dtype=torch.float32,
        vae_dtype=torch.float32,
    )
    pipeline = SamplePipeline(TextConditioner(family), "ddim", nullcontext)
    without = _graded(pipeline, "without the LoRA")
    with _wearing(family, lora):
        with_lora = _graded(pipeline, "with the LoRA")
    kept = with_lora[1].share / max(without[1].share, 1e-9)
    print(
        f"subject drawn right   with the LoRA {with_lora[0]}, without {without[0]}\n"
        f"other prompts right   with the LoRA {with_lora[1]}, without {without[1]}: {kept:.0%} kept"
    )


def _graded(pipeline: SamplePipeline, label: str) -> tuple[Grade, Grade]:
    with tqdm(
        total=SUBJECTS + OTHERS, desc=f"measuring {label}", unit="picture", leave=False
    ) as bar:
        subject = grade_subject(pipeline, count=SUBJECTS)
        bar.update(SUBJECTS)
        others = grade_vocabulary(pipeline, count=OTHERS)
        bar.update(OTHERS)
    return subject, others


@contextmanager
def _wearing(family: Family, lora: Path) -> Iterator[None]:
    """The LoRA file acts on the family inside the block."""
    network = attach(
        NetworkSettings(network_weights=str(lora), dim_from_weights=True),
        family,
        learns=parts_of(family),
        seed=0,
        start=tensors.read_lora(lora).tensors,
    ).eval()
    try:
        yield
    finally:
        network.detach_hooks()
