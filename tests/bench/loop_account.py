"""What the host does from one step to the next, in a whole run where the device is a clock.

python -m tests.bench.loop_account [--family sdxl] [--milliseconds 15] [--in-turn]

Loop, feed, optimizer, guardian, events and who hears them are the real ones, on a small base model
with as many layers as a real one. A gradient is made once; from then on it is "there" so many
milliseconds after it was asked for, or after the one before it, as on a GPU that works by itself.

    judged   from the losses' arrival until the weights are told to move, microseconds
    asked    from there until the next gradient is asked for: what a GPU waits for in a step is both
    core     core-microseconds of the whole process, a step
    share    the device's time / the run's time, both of a step; its own launches are not in it
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import torch

from kit import planning, telling
from kit.events import Stepped
from kit.sinks import listening
from kit.training import ahead, preparation
from kit.training import step as steps
from kit.training.checkpoint import Checkpoint
from kit.training.engine import EagerEngine
from kit.ui.monitor.dashboard import Dashboard
from tests.support import tiny
from tests.support.toys import draw_images, toy_settings

WARM_UP = 50
BLOCKS = {"sdxl": [1, 2, 10]}  # transformers in each block, as in the real one
Marks = list[tuple[str, float]]


class Clock(EagerEngine):
    """Stands in for a device: gradients of the first step, then its losses over and over."""

    marks: Marks
    seconds = 0.0
    ready_at = 0.0
    losses_B = None

    def replays(self, batch, count):
        """Once it has some."""
        return self.losses_B is not None

    def gradient(self, batch, count):
        """Those of the first step."""
        self.marks.append(("asked", time.perf_counter()))
        if self.losses_B is None:
            self.losses_B = super().gradient(batch, count)
        self.ready_at = max(self.ready_at, time.perf_counter()) + self.seconds
        return self.losses_B


@contextmanager
def on_a_clock(marks: Marks, *, seconds: float, begins: bool, keeps: bool) -> Iterator[None]:
    """Runs inside the block train on a device that is a clock."""
    clock: list[Clock] = []
    read, moves, feed = steps._read, steps.TrainingStep.update, preparation._feed

    def make_engine(step, *_, **__):
        step.keeps_gradients = True
        clock[:] = [Clock(step)]
        clock[0].marks, clock[0].seconds = marks, seconds
        return clock[0]

    def waiting(losses, norm):
        time.sleep(max(0.0, clock[0].ready_at - time.perf_counter()))
        marks.append(("there", time.perf_counter()))
        return read(losses, norm)

    def moving(step):
        moves(step)
        marks.append(("moved", time.perf_counter()))

    with ExitStack() as stack:
        enter = stack.enter_context
        enter(patch.object(preparation, "make_engine", make_engine))
        enter(patch.object(steps, "_read", waiting))
        enter(patch.object(steps.TrainingStep, "update", moving))
        enter(patch.object(ahead, "can_begin", lambda *_: begins))
        enter(patch.object(preparation, "_feed", lambda *a, **k: feed(*a, **k | {"beside": "mps"})))
        if not keeps:
            enter(patch.object(Checkpoint, "save_state_if_cheap", lambda *_: None))
        yield


def account(settings, listeners, **how) -> str:
    """A line about a run."""
    marks: Marks = []
    at, cpu = [], []
    plan = planning.plan(settings)
    with on_a_clock(marks, **how), listeners(plan) as heard:
        for event in telling.train(plan, listeners=heard):
            if isinstance(event, Stepped):
                at.append(time.perf_counter())
                cpu.append(time.process_time())
    spans: dict[str, list[float]] = {"moved": [], "asked": []}
    for (one, now), (other, then) in pairwise(marks):
        if (one, other) in (("there", "moved"), ("moved", "asked")):
            spans[other].append(then - now)
    judged, asked = (1e6 * statistics.median(span[WARM_UP:]) for span in spans.values())
    count = len(at) - 1 - WARM_UP
    whole, core = (at[-1] - at[WARM_UP]) / count, (cpu[-1] - cpu[WARM_UP]) / count
    share = f", share {how['seconds'] / whole:.3f}" if how["seconds"] else ""
    return f"judged {judged:4.0f}, asked {asked:4.0f}, core {1e6 * core:5.0f}{share}"


@contextmanager
def nobody(_):
    """Nobody hears."""
    yield []


@contextmanager
def usual(_):
    """As `kit train`."""
    yield None


@contextmanager
def dashboard_too(plan):
    """As the notebook's Train."""
    with listening(plan.run, Dashboard(plan, shows_itself=False), settings=plan.settings) as tell:
        yield [tell]


WHO: tuple[tuple[str, Callable, bool, str], ...] = (
    ("nobody hears", nobody, False, ""),
    ("state is kept", nobody, True, ""),
    ("events.jsonl, loss.png", usual, False, ""),
    ("and TensorBoard", usual, False, "tensorboard"),
    ("and the dashboard", dashboard_too, False, "tensorboard"),
    ("and state is kept", dashboard_too, True, "tensorboard"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", default="sd1", choices=("sd1", "sd2", "sdxl"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--milliseconds", type=float, default=15.0)
    parser.add_argument("--optimizer", default="AdamW")
    parser.add_argument("--in-turn", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.family in BLOCKS:
        tiny._UNETS[chosen.family]["transformer_layers_per_block"] = BLOCKS[chosen.family]
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        ask = partial(
            toy_settings,
            tiny.write_tiny(room / "model", chosen.family),
            draw_images(room / "images"),
            max_train_steps=chosen.steps,
            optimizer_type=chosen.optimizer,
            text_encoder_lr=0,
            cache_text_encoder_outputs=True,
            logging_dir=str(room / "logs"),
        )
        how = {"seconds": chosen.milliseconds / 1000, "begins": not chosen.in_turn}
        for number, (who, listeners, keeps, loggers) in enumerate(WHO):
            settings = ask(room / str(number), log_with=loggers)
            told = account(settings, listeners, keeps=keeps, **how)
            print(f"{who:24} {told}", flush=True)


if __name__ == "__main__":
    main()
