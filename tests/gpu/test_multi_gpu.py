"""One run on two GPUs over NCCL. NOT YET RUN: no machine with two GPUs was at hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kit
from kit.sinks import read_events
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, toy_settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.multi_gpu,
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_two_gpus_learn_what_one_does_that_accumulates(tmp_path, precision, sharded):
    model = write_tiny(tmp_path / "model", "sd1", thin=True)
    images = draw_images(tmp_path / "images")
    changes = {"mixed_precision": precision, "epoch": 3, "unet_lr": 1e-3, "text_encoder_lr": 1e-3}
    file, two = tmp_path / "run.toml", changes | {"shard_base": sharded}
    file.write_text(toy_settings(model, images, tmp_path / "two", **two).to_toml())
    words = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "kit", "train"]
    done = subprocess.run(
        [sys.executable, "-m", *words, str(file)],
        env=os.environ | {"PYTHONPATH": str(Path(kit.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    alone = toy_settings(
        model, images, tmp_path / "one", gradient_accumulation_steps=2, gpu_ids="0", **changes
    )
    straight, events = run(alone), read_events(tmp_path / "two/toy.run/events.jsonl")
    assert losses(events) == pytest.approx(losses(straight), rel=1e-2)
    one, two = lora(tmp_path / "one"), lora(tmp_path / "two")
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert apart < (1e-5 if precision == "no" else 1e-3)
