"""The two commands that start several processes, as a person types them; gloo, on CPUs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kit
from kit.events import Finished
from kit.sinks import read_events
from tests.support.ranks import free_port
from tests.support.tiny import write_tiny
from tests.support.toys import lora, losses, run, same, toy_settings

ROOT = Path(kit.__file__).parents[1]
LAUNCHERS = {
    "accelerate": [
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes=2",
        "--main_process_port=0",
    ],
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node=2"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


def launched(words, file, **environment):
    command = [sys.executable, "-m", *words, "-m", "kit", "train", file]
    known = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_LOG_LEVEL": "error"}
    return subprocess.run(
        [str(word) for word in command],
        env=os.environ | known | environment,
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_trains_one_run_in_two_processes(tmp_path, model, images, name):
    settings = toy_settings(model, images, tmp_path / "together", epoch=1)
    file = tmp_path / "run.toml"
    file.write_text(settings.to_toml())
    done = launched(LAUNCHERS[name], file, LORA_KIT_PROCESSES="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 images, with repeats 6") == 1  # only the first one speaks
    assert "global batch 1 x 2 processes" in done.stdout
    alone = toy_settings(model, images, tmp_path / "alone", epoch=1, gradient_accumulation_steps=2)
    straight, events = run(alone), read_events(tmp_path / "together/toy.run/events.jsonl")
    assert isinstance(events[-1], Finished)
    assert losses(events) == losses(straight)
    assert same(lora(tmp_path / "together"), lora(tmp_path / "alone"))


@pytest.mark.long
def test_two_machines_that_share_no_folder_train_one_run(tmp_path, model, images):
    """As on two machines: each has model and pictures in the same place of a disk of its own."""
    at_work, port = [], free_port()
    for rank in range(2):
        place = tmp_path / f"machine{rank}"
        shutil.copytree(model, place / "model")
        shutil.copytree(images, place / "images")
        settings = toy_settings(Path("model"), Path("images"), Path("out"), epoch=1)
        settings = settings.replace(cache_latents=True)
        (place / "run.toml").write_text(settings.to_toml())
        words = ["torch.distributed.run", "--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1"]
        words += ["--master_addr=127.0.0.1", f"--master_port={port}", "-m", "kit", "train"]
        at_work.append(
            subprocess.Popen(
                [sys.executable, "-m", *words, "run.toml"],
                cwd=place,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )
        )
    assert [each.wait(180) for each in at_work] == [0, 0]
    alone = toy_settings(model, images, tmp_path / "alone", epoch=1, gradient_accumulation_steps=2)
    run(alone)
    assert same(lora(tmp_path / "machine0/out"), lora(tmp_path / "alone"))
    assert not (tmp_path / "machine1/out/toy.safetensors").exists()  # process 0 writes, alone


@pytest.mark.slow
def test_a_launcher_that_starts_one_in_silence_is_told_on(tmp_path, model, images):
    file = tmp_path / "run.toml"
    file.write_text(toy_settings(model, images, tmp_path, epoch=1).to_toml())
    words = ["accelerate.commands.launch", "--num_processes=2", "--cpu"]
    done = launched(words, file)
    assert done.returncode != 0
    assert "Several processes were asked for, and only one started" in done.stderr
    assert not (tmp_path / "toy.run").exists()
