"""Runs as the training would tell them."""

from kit.events import Began, Finished, Loaded, Saved, Stepped


def stepped(step, loss=0.1):
    rates = {"unet": 1e-4, "text_encoder": 5e-5}
    return Stepped(step, step / 10, loss, loss_average=0.12, rates=rates, norm=1.0, seconds=0.25)


def whole_run(steps, name="cat"):
    """A run without samples, as the training tells it."""
    yield Began("output/cat.run", name, steps)
    yield Loaded("Stable Diffusion 1.x", "cpu", "no", layers=264, weights=1000, from_step=0)
    for step in range(1, steps + 1):
        yield stepped(step, loss=1 / step)
    yield Saved(steps, 1, f"output/{name}.safetensors")
    yield Finished(steps, "done", f"output/{name}.safetensors")
