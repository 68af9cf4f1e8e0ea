"""CUDA graphs and deterministic kernels, in whole runs on a CUDA device.

The stand-in's tests (tests/training/test_engines.py) say what else must hold.
"""

import pytest
import torch

from kit.demo import BASE
from kit.events import Noticed
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
STEPS = 24


@pytest.fixture
def asked(tmp_path):
    images = draw_images(tmp_path / "images", count=3)
    return lambda out, **changes: toy_settings(
        BASE, images, tmp_path / out, max_train_steps=STEPS, **changes
    )


def told(events):
    return " ".join(event.text for event in events if isinstance(event, Noticed))


@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text_encoder_lr": 0, "cache_text_encoder_outputs": True},
        {"gradient_checkpointing": True},
        {"network_dropout": 0.2},
        {"train_batch_size": 2, "gradient_accumulation_steps": 2},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_a_graph_is_the_called_step(asked, precision, changes):
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bf16")
    changes = {**changes, "mixed_precision": precision, "deterministic": True}
    called = run(asked("called", **changes, step_engine="eager"))
    replayed = run(asked("replayed", **changes, step_engine="graph"))
    assert losses(replayed) == pytest.approx(
        losses(called), rel=1e-3 if precision == "no" else 2e-2
    )
    assert "call by call" not in told(replayed)


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_two_deterministic_runs_end_in_equal_files(asked, tmp_path, engine):
    for out in ("one", "other"):
        run(asked(out, step_engine=engine, deterministic=True, mixed_precision="fp16"))
    assert same(lora(tmp_path / "one"), lora(tmp_path / "other"))
