"""What the host does between two steps, in microseconds, where the step itself costs nothing.

python -m tests.bench.loop_account [--family sdxl] [--steps N] [--state]

The loop, its feed, optimizer, guardian, events and those who hear them are the real ones, on a small
base model with as many layers as a real one; gradients are made once, and then no more. So what is
told is what a GPU would wait for, without the launches themselves:

    read      losses and norm are there; until they are judged and the weights are told to move
    moved     until the next step's gradient is asked for: here a GPU has nothing to do
    a step    core-microseconds of the whole process, all told
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from kit import planning, telling
from kit.training import preparation, step as steps
from kit.training.engine import EagerEngine
from tests.support import tiny
from tests.support.toys import draw_images, toy_settings

WARM_UP = 50
BLOCKS = {"sdxl": [1, 2, 10]}  # transformers of each depth, as in the real one


class Nothing(EagerEngine):
    """Gradients of the first step, and then none: the losses of the first one, over and over."""

    marks: list[tuple[str, float]]
    losses_B = None

    def gradient(self, batch, count):
        self.marks.append(("asked", time.perf_counter()))
        if self.losses_B is None:
            self.losses_B = super().gradient(batch, count)
        return self.losses_B

    def is_queued(self, batch, count):
        return self.losses_B is not None


def account(settings, *, listeners, state: bool, control=None) -> dict[str, float]:
    """Medians over the steps of a run, by name."""
    marks: list[tuple[str, float]] = []

    def engine(step, *_, **__):
        step.keeps_gradients = True
        made = Nothing(step)
        made.marks = marks
        return made

    def marked(name, function):
        def call(*given, **named):
            made = function(*given, **named)
            marks.append((name, time.perf_counter()))
            return made

        return call

    patched = (
        (preparation, "make_engine", engine),
        (steps, "_read", marked("read", steps._read)),
        (steps.TrainingStep, "update", marked("moved", steps.TrainingStep.update)),
    )
    before = [(where, name, getattr(where, name)) for where, name, _ in patched]
    for where, name, made in patched:
        setattr(where, name, made)
    checkpoint = preparation.Checkpoint
    saves = checkpoint.save_state_if_cheap
    if not state:
        checkpoint.save_state_if_cheap = lambda self, step: None
    try:
        plan = planning.plan(settings)
        told = 0
        for event in telling.train(plan, control, listeners=listeners(plan)):
            if type(event).__name__ == "Stepped":
                told += 1
                if told == WARM_UP:
                    cpu = time.process_time()
                last = time.process_time()
    finally:
        checkpoint.save_state_if_cheap = saves
        for where, name, made in before:
            setattr(where, name, made)
    spans: dict[str, list[float]] = {"read": [], "moved": []}
    for (one, at), (other, then) in zip(marks, marks[1:], strict=False):
        if one == "read" and other == "moved":
            spans["read"].append(then - at)
        if one == "moved" and other == "asked":
            spans["moved"].append(then - at)
    found = {name: 1e6 * statistics.median(values[WARM_UP:]) for name, values in spans.items()}
    found["moved, mean"] = 1e6 * statistics.mean(spans["moved"][WARM_UP:])
    found["a step"] = 1e6 * (last - cpu) / (told - WARM_UP)
    return found


def nobody(plan):
    return []


def usual(plan):
    """As `kit train` and the notebook's Train."""
    return None


def dashboard_too(plan):
    from kit.sinks import listening
    from kit.ui.monitor.dashboard import Dashboard

    entered = listening(plan.run, Dashboard(plan, shows_itself=False), settings=plan.settings)
    _open.append(entered)
    return [entered.__enter__()]


_open: list = []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", default="sd1", choices=("sd1", "sd2", "sdxl"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--optimizer", default="AdamW")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.family in BLOCKS:
        tiny._UNETS[chosen.family]["transformer_layers_per_block"] = BLOCKS[chosen.family]
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        model = tiny.write_tiny(room / "model", chosen.family)
        images = draw_images(room / "images")
        print(f"{chosen.family}, {chosen.steps} steps, {chosen.optimizer}; microseconds")
        for number, (who, listeners, state, logs) in enumerate(
            (
                ("nobody hears", nobody, False, {}),
                ("nobody hears, state kept", nobody, True, {}),
                ("events.jsonl, loss.png", usual, False, {}),
                ("and TensorBoard", usual, False, {"log_with": "tensorboard"}),
                ("and the dashboard", dashboard_too, False, {"log_with": "tensorboard"}),
                ("and state kept", dashboard_too, True, {"log_with": "tensorboard"}),
            )
        ):
            settings = toy_settings(
                model, images, room / f"out{number}", max_train_steps=chosen.steps,
                optimizer_type=chosen.optimizer, text_encoder_lr=0, cache_text_encoder_outputs=True,
                cache_latents=True, **({"logging_dir": str(room / "logs")} if logs else {}), **logs,
            )  # fmt: skip
            found = account(settings, listeners=listeners, state=state)
            while _open:
                _open.pop().__exit__(None, None, None)
            told = ", ".join(f"{name} {value:,.0f}" for name, value in found.items())
            print(f"  {who:28} {told}", flush=True)


if __name__ == "__main__":
    main()
