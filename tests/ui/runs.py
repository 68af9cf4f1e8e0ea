"""Runs as the training would tell them."""

import threading
import time

from kit.events import Began, Finished, Loaded, Saved, Stepped, Validated


def stepped(step, loss=0.1):
    return Stepped(
        step,
        step / 10,
        loss,
        loss_average=0.12,
        rates={"unet": 1e-4 if step < 100 else 1e-8 * step, "text_encoder": 5e-5},
        norm=1.0,
        seconds=0.25,
        bands=(loss, None, loss / 2, 2 * loss),
    )


def whole_run(steps, name="cat", *, validates=False):
    """A run without samples, as the training tells it; with three validations, or none."""
    yield Began("output/cat.run", name, steps)
    yield Loaded("Stable Diffusion 1.x", "cpu", "no", layers=264, weights=1000, from_step=0)
    for step in range(1, steps + 1):
        yield stepped(step, loss=1 / step)
        if validates and step in (1, steps // 2, steps):
            bands = {"bands": (0.1, 0.2, None, 0.1 / step), "base_bands": (0.2, 0.2, None, 0.2)}
            yield Validated(step, step / 10, 0.1 + 1 / step, 0.3, **bands, word="learning")
    yield Saved(steps, 1, f"output/{name}.safetensors")
    yield Finished(steps, "done", f"output/{name}.safetensors")


class Script:
    """A training without torch that makes a step whenever it is let; `train` is what it is."""

    def __init__(self, steps=1000, error=None, pace=None):
        self.steps, self.error, self.pace = steps, error, pace
        self.requests = []
        self.ignores_requests = False
        self.began = threading.Event()
        self._gate = threading.Semaphore(0)

    def let(self, steps=1):
        """Let it make steps; all of them if 0."""
        self._gate.release(steps or self.steps)

    def train(self, plan, control):
        plan.run.dir.mkdir(parents=True, exist_ok=True)
        yield Began(str(plan.run.dir), plan.run.name, self.steps)
        yield Loaded("Stable Diffusion 1.x", "cpu", "no", layers=264, weights=1000, from_step=0)
        self.began.set()
        for step in range(1, self.steps + 1):
            while not (self.pace or self._gate.acquire(timeout=0.01)):
                self.requests += control.take()
                if control.stop_requested and not self.ignores_requests:
                    break
            if control.stop_requested and not self.ignores_requests:
                yield Finished(step - 1, "asked to stop", f"{plan.run.name}-step.safetensors")
                return
            time.sleep(self.pace or 0)
            if self.error and step == 3:
                raise self.error
            yield stepped(step, loss=1 / step)
        yield Finished(self.steps, "done", f"{plan.run.name}.safetensors")


def until(true, seconds=20):
    """Wait for something that another thread does."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)
