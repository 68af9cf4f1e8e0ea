"""`kit bench --against PATH`: both are run as programs, and told apart. No timing is looked at."""

import errno
import json
import os
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch
from transformers import CLIPTokenizer

from kit.basemodel import detect
from kit.bench import against, bases, suite
from kit.bench.against import beside_program
from kit.bench.hosted import Compose, Normalize, ToTensor
from kit.bench.programs import run_program
from kit.bench.report import beside_tables, picture, table
from kit.bench.sd_scripts import Checkout
from kit.bench.work import Work
from kit.errors import KitError, OutputError
from kit.families import Prediction
from kit.families.clip import packaged_tokenizer
from kit.families.loading import load_family
from tests.support.tiny import write_tiny

# Reads its settings and shows its progress as sd-scripts does; what it was given is written down.
STAND_IN = """
import argparse, json, os, sys, time, tomllib
from pathlib import Path
from torchvision import transforms

transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
parser = argparse.ArgumentParser()
parser.add_argument("--config_file")
parser.add_argument("--tokenizer_cache_dir")
asked = parser.parse_args()
settings = tomllib.loads(Path(asked.config_file).read_text())
settings["tokenizers"] = sorted(os.listdir(asked.tokenizer_cache_dir))
settings["pictures"] = sorted(p.name for p in Path(settings["train_data_dir"]).glob("*/*.png"))
settings["environment"] = sorted(os.environ)
Path(__file__).with_name("given.json").write_text(json.dumps(settings))
count = settings["max_train_steps"]
for step in range(count + 1):
    time.sleep(0.02)
    part = f"steps: {100 * step // count:3}%|#   | {step}/{count} [00:00<00:00,  1.0s/it"
    for end in ("]", ", avr_loss=0.1]"):
        print("\\r" + part + end, end="", file=sys.stderr, flush=True)
"""


@pytest.fixture
def checkout(tmp_path):
    """A program that behaves like sd-scripts."""
    return write_checkout(tmp_path / "sd-scripts", STAND_IN)


def write_checkout(folder, text):
    folder.mkdir()
    for name in ("train_network.py", "sdxl_train_network.py"):
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A small base model in the place of the one of real size."""
    model = write_tiny(tmp_path / "model", "sd1", thin=True)
    monkeypatch.setattr(against, "saved_base", lambda folder, key, dtype: model)
    return model


def test_both_train_the_same(checkout, base, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    work = Work("sd15", 64, 2)
    told = beside_program(work, Checkout.at(checkout), steps=2, warm_up=1)
    ours, theirs = told["ours"], told["sd-scripts"]
    assert ours["steps"] == theirs["steps"] == 2
    assert ours["host_peak_mib"] > theirs["host_peak_mib"] > 0  # the other has no torch
    ratio = ours["seconds"]["median"] / theirs["seconds"]["median"]
    assert told["ratio"]["median"] == pytest.approx(ratio, rel=1e-3)
    assert told["memory_ratio"]["median"] > 1
    assert any("encodes captions in each step" in text for text in told["differs"])

    given = json.loads((checkout / "given.json").read_text("utf-8"))
    assert given["pretrained_model_name_or_path"] == str(base)
    wanted = {
        "resolution": "64,64",
        "train_batch_size": 2,
        "max_train_steps": 3,
        "network_dim": 8,
        "network_alpha": 1,
        "network_module": "networks.lora",
        "network_train_unet_only": True,
        "unet_lr": 1e-4,
        "optimizer_type": "AdamW",
        "lr_scheduler": "constant",
        "mixed_precision": "no",
        "cache_latents": True,
        "sdpa": True,
    }
    assert {name: given.get(name) for name in wanted} == wanted
    assert len(given["pictures"]) == 16
    assert "openai_clip-vit-large-patch14" in given["tokenizers"]
    assert not {"HF_TOKEN", "PYTHONPATH"} & set(given["environment"])


def test_a_program_that_fails_is_told_with_its_last_words(base, tmp_path):
    folder = write_checkout(tmp_path / "broken", "raise ImportError('no voluptuous here')")
    with pytest.raises(KitError, match=r"did not train: .*no voluptuous here[\s\S]*--python"):
        beside_program(Work("sd15", 64), Checkout.at(folder), steps=1, warm_up=1)


def test_what_it_cannot_do_is_refused_before_anything_runs(checkout, base):
    with pytest.raises(KitError, match="--base-precision int8"):
        beside_program(
            Work("sd15", 64, base_precision="int8"), Checkout.at(checkout), steps=1, warm_up=1
        )


def test_a_folder_without_it_is_refused(tmp_path):
    with pytest.raises(KitError, match=r"--against .*sdxl_train_network.py[\s\S]*git clone"):
        suite.beside(str(tmp_path))


def test_a_python_is_for_a_program_alone(checkout):
    with pytest.raises(KitError, match="has no effect"):
        suite.beside("diffusers", sys.executable)
    with pytest.raises(KitError, match="there is no such program"):
        suite.beside(str(checkout), "/nowhere/python")
    assert suite.beside("diffusers") == "diffusers"
    assert suite.beside(str(checkout)).python == sys.executable
    own = checkout / "venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.symlink_to(sys.executable)
    assert suite.beside(str(checkout)).python == str(own)


def test_a_program_whose_time_is_over_is_ended():
    words = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    heard = []
    ended = run_program(
        [sys.executable, "-c", words],
        tell=lambda line, cpu: heard.append(line),
        until=time.monotonic() + 2,
    )
    assert ended.code is None
    with pytest.raises(ProcessLookupError):
        os.kill(int(heard[0]), 0)


def sides(**changes):
    side = {
        "seconds": {"median": 2.0},
        "cpu_seconds": {"median": 4.0},
        "images_per_second": 0.5,
        "host_peak_mib": 4000,
        "device_peak_mib": None,
        "seconds_until_first_step_is_done": 12.0,
        "cpu_seconds_until_first_step_is_done": 20.0,
    }
    return side | changes


def result(work, ours, theirs):
    return {
        "work": vars(work),
        "hardware": {"device": "a CPU"},
        "differs": ["one thing"],
        "ours": ours,
        "sd-scripts": theirs,
        "host_peak_mib": ours["host_peak_mib"],
        "device_peak_mib": None,
        **against.ratios(ours, theirs),
    }


def test_the_table_has_a_row_for_each_and_one_of_ratios(tmp_path):
    theirs = sides(seconds={"median": 2.5}, host_peak_mib=5000)
    told = [result(Work("sd15", 128), sides(), theirs)]
    (shown,) = beside_tables(told)
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert rows[-1] == "| ours / theirs | 0.80 | 1.00 | 1.00 | 0.80 | - | 1.00 | 1.00 |"
    assert "one thing" in shown
    assert "0.80" in table(told)
    picture(told, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000


@pytest.fixture
def small_configs(tmp_path, monkeypatch):
    """The shapes of a small model in the place of the real ones."""
    model = write_tiny(tmp_path / "small", "sd1", thin=True)
    monkeypatch.setattr(bases, "config_folder", lambda key: model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_base_of_random_weights_is_one_that_loads(small_configs, tmp_path, dtype):
    folder = bases.saved_base(tmp_path / "base", "sd1", dtype)
    family = load_family(
        detect(folder),
        predicts=Prediction.EPSILON,
        device=torch.device("cpu"),
        dtype=dtype,
        vae_dtype=dtype,
    )
    assert family.unet.conv_in.weight.dtype is dtype
    names = [path.name for path in folder.iterdir()]
    assert {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} < set(names)
    written = folder.stat().st_mtime_ns
    assert bases.saved_base(folder, "sd1", dtype).stat().st_mtime_ns == written


def test_its_tokenizer_is_clips(tmp_path):
    bases.write_tokenizer(tmp_path, "<|endoftext|>")
    text = "a photo of a corgi, 2 cherry-blossoms"
    expected = packaged_tokenizer().inner(text).input_ids
    assert CLIPTokenizer.from_pretrained(tmp_path)(text).input_ids == expected


def test_a_full_disk_leaves_nothing_behind(small_configs, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bases, "save_file", full)
    with pytest.raises(OutputError, match=r"No space left[\s\S]*LORA_KIT_CACHE"):
        bases.saved_base(tmp_path / "base", "sd1", torch.float32)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("base")]


def test_the_transforms_that_stand_in_are_the_known_ones():
    pixels = numpy.arange(24, dtype=numpy.uint8).reshape(2, 4, 3)
    found = Compose([ToTensor(), Normalize([0.5], [0.5])])(pixels)
    assert found.shape == (3, 2, 4)
    assert torch.allclose(found, torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1)


def test_the_file_that_runs_elsewhere_needs_nothing_of_ours():
    from kit.bench import hosted

    lines = Path(hosted.__file__).read_text("utf-8").splitlines()
    assert not [line for line in lines if line.startswith(("import kit", "from kit"))]
