"""`kit bench`: the work it measures, what it tells, where that lies. No timing is looked at."""

import argparse
import json
from dataclasses import asdict, fields

import pytest
import torch
from PIL import Image

from kit.basemodel import detect
from kit.bench import suite
from kit.bench.launches import aten_calls
from kit.bench.measuring import measure
from kit.bench.work import Work, usual
from kit.cli import COMMANDS
from kit.errors import KitError, MissingPackage
from kit.families import Prediction
from kit.families.loading import load_family
from kit.training import engine_choice
from tests.support.recorded_calls import RecordedCalls
from tests.support.tiny import write_tiny

OTHER = Work("sdxl", 64, 2, "bf16", 4, "Lion", "int8", True, True, True, "eager")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small models by their families."""
    folder = tmp_path_factory.mktemp("models")
    return {key: write_tiny(folder / key, key, thin=True) for key in ("sd1", "sd2", "sdxl")}


@pytest.fixture
def tiny(models, monkeypatch):
    """Small models in the place of those of real size."""

    def family(key, *, device, dtype, base_precision):
        return load_family(
            detect(models[key]),
            predicts=Prediction.EPSILON,
            device=device,
            dtype=dtype,
            vae_dtype=dtype,
            base_precision=base_precision,
        )

    monkeypatch.setattr("kit.bench.sides.full_family", family)
    monkeypatch.setattr("kit.bench.measuring.product_speed", lambda dtype: 1e12)


def parsed(words):
    parser = argparse.ArgumentParser()
    COMMANDS["bench"].describe(parser)
    return suite.work_from(vars(parser.parse_args(words)))


@pytest.mark.parametrize("work", [Work(), OTHER, *usual("cuda"), *usual("cpu")], ids=str)
def test_a_work_is_what_its_words_say(work):
    assert parsed(suite.arguments_of(work)) == work


def test_every_field_of_a_work_is_in_its_name():
    default = asdict(Work())
    names = {str(Work(**default | {f.name: getattr(OTHER, f.name)})) for f in fields(Work)}
    assert len(names) == len(fields(Work))
    assert str(Work()) not in names


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("encodes", [False, True], ids=["captions given", "captions encoded"])
def test_both_sides_begin_alike(tiny, family, encodes):
    work = Work(family, 64, 2, encodes_captions=encodes)
    told = measure(work, steps=2, warm_up=1, against=True)
    ours, theirs = told["ours"]["losses"], told["diffusers"]["losses"]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-2)  # both learn: their LoRA starts differ
    assert told["ours"]["steps"] == told["diffusers"]["steps"] == 2


def test_a_peft_that_does_not_fit_is_told(tiny, monkeypatch):
    def refuses(self, config):
        raise ValueError("please use a version >= 0.22.0")

    monkeypatch.setattr("transformers.CLIPTextModel.add_adapter", refuses)
    with pytest.raises(MissingPackage, match=r"peft .*please use a version >= 0.22.0"):
        measure(Work("sd15", 64, text_encoder=True), steps=1, warm_up=1, against=True)


def test_what_is_told_can_be_read_by_programs(tiny):
    told = json.loads(json.dumps(measure(Work("sd15", 64), steps=1, warm_up=1)))
    assert Work(**told["work"]) == Work("sd15", 64)
    assert told["hardware"]["device"]
    assert told["tflop"] >= 0
    assert set(told["phase_seconds"]) == {
        "batch to the device", "forward", "backward", "optimizer"
    }  # fmt: skip
    assert told["aten_calls"] > 500
    assert told["kernels"] is None or torch.cuda.is_available()


def test_encoding_captions_is_more_work(tiny):
    given = measure(Work("sd15", 64), steps=1, warm_up=1)
    encoded = measure(Work("sd15", 64, encodes_captions=True), steps=1, warm_up=1)
    assert encoded["aten_calls"] > given["aten_calls"]


def test_checkpointing_computes_again_and_does_not_count_it(tiny):
    plain = measure(Work("sd15", 64), steps=1, warm_up=1)
    again = measure(Work("sd15", 64, checkpointing=True), steps=1, warm_up=1)
    assert again["aten_calls"] > plain["aten_calls"]
    assert again["tflop"] == plain["tflop"]


def test_views_are_no_calls():
    numbers = torch.arange(6.0)
    assert aten_calls(lambda: numbers.reshape(2, 3).t()[0]) == {}
    assert aten_calls(lambda: numbers + 1) == {"add": 1}


@pytest.fixture
def measured(tiny, monkeypatch):
    """Works are measured here rather than in processes; SDXL is out of memory."""

    def here(work, *, steps, beside, seconds, whole):
        if work.family == "sdxl":
            return "out of memory"
        return measure(Work(work.family, 64), steps=steps, warm_up=1, against=bool(beside))

    monkeypatch.setattr(suite, "_in_process", here)


def test_several_leave_a_table_numbers_and_a_picture(measured, tmp_path):
    said = []
    works = [Work("sd15"), Work("sdxl"), Work("sd21")]
    results = suite.several(
        tmp_path / "out", minutes=5, beside="diffusers", steps=1, works=works, tell=said.append
    )
    assert [result["work"]["family"] for result in results] == ["sd15", "sd21"]
    assert said[1].endswith("not measured: out of memory")
    kept = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    assert kept == json.loads(json.dumps(results))
    table = (tmp_path / "out" / "bench.md").read_text("utf-8").splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    with Image.open(tmp_path / "out" / "bench.png") as picture:
        assert picture.width > 600


def test_without_time_nothing_is_begun(measured, tmp_path):
    with pytest.raises(KitError, match="Nothing could be measured"):
        suite.several(tmp_path, minutes=0.1, tell=lambda line: None)


def test_a_process_that_fails_says_why():
    said = suite._in_process(Work(precision="fp16"), steps=1, beside="", seconds=600)
    if torch.cuda.is_available():
        pytest.skip("a GPU has fp16")
    assert "mixed_precision" in said


def test_where_there_are_graphs_replayed_steps_are_measured(tiny, monkeypatch):
    recorder = RecordedCalls()
    monkeypatch.setattr(engine_choice, "recorder_for", lambda device: recorder)
    called = measure(Work("sd15", 64, step_engine="eager"), steps=3, warm_up=1)
    assert not recorder.recorded
    told = measure(Work("sd15", 64), steps=3, warm_up=1)
    assert (called["step_engine"], told["step_engine"]) == ("eager", "graph")
    assert recorder.recorded[0].replays >= 2 + 3  # those that are compared come before
    assert told["ours"]["losses"][:3] == called["ours"]["losses"][:3]
