"""What a bench measured: the form's forecast and the planner read it as they read a run's."""

from dataclasses import replace

import pytest

from kit import demo, planning
from kit.bench import suite
from kit.bench.remembering import keep, measured_row
from kit.bench.work import Work, settings_of
from kit.hosts import Gpu, processor
from kit.planning import forecast as module
from kit.planning.forecast import UNKNOWN, forecast
from kit.planning.needs import WEIGHTS
from kit.runs.measured import measured_here, remember

T4 = Gpu("Tesla T4", 15_000)
GPU_WORK = Work("sd15", 512, precision="fp16")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A machine with a T4 that has measured nothing yet."""
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "gpu", lambda: T4)
    # The embedded base stands for a model of real size.
    monkeypatch.setattr("kit.runs.measured._is_miniature", lambda model: False)


def result(work=GPU_WORK, seconds=0.5, host=4000, device=3000, name=T4.name):
    return {
        "work": vars(work),
        "hardware": {"device": name},
        "host_peak_mib": host,
        "device_peak_mib": device,
        "ours": {"seconds": {"median": seconds}},
    }


def plan_of(tmp_path, work, steps=100):
    own = {"pretrained_model_name_or_path": str(demo.BASE), "train_data_dir": str(demo.DATA)}
    settings = settings_of(work, steps=steps)
    return planning.plan(settings.replace(**own, output_dir=str(tmp_path / "output")))


def test_the_forecast_tells_what_a_bench_measured(tmp_path):
    plan = plan_of(tmp_path, GPU_WORK)
    assert forecast(plan) == UNKNOWN
    keep(result())
    assert forecast(plan) == "About 50 s on this T4, 3.1 of 15 GB"


def test_other_work_is_reckoned_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "family_of", lambda model: "sd1")  # the embedded base is too small
    keep(result())
    recomputing = plan_of(tmp_path, replace(GPU_WORK, checkpointing=True))
    assert forecast(recomputing).startswith("About 75 s on this T4")
    assert "reckoned from a run with another gradient_checkpointing" in forecast(recomputing)


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"batch": 4}, "train_batch_size", 4),
        ({"rank": 16}, "network_dim", 16),
        ({"optimizer": "Lion"}, "optimizer_type", "Lion"),
        ({"base_precision": "int8"}, "base_precision", "int8"),
        ({"checkpointing": True}, "gradient_checkpointing", True),
        ({"text_encoder": True}, "learns", "unet and text encoder"),
        ({"encodes_captions": True}, "caches_captions", False),
        ({"precision": "bf16"}, "mixed_precision", "bf16"),
        ({"px": 640}, "resolution", "640x640"),
        ({"family": "sdxl"}, "family", "sdxl"),
    ],
)
def test_every_field_of_a_work_is_kept(changes, name, value):
    plain, other = measured_row(result()), measured_row(result(replace(GPU_WORK, **changes)))
    assert other.work[name] == value != plain.work[name]


def test_on_a_cpu_the_vae_that_a_bench_does_without_is_counted():
    row = measured_row(result(Work("sd15", 128), device=None, name="some CPU, 2 threads"))
    assert row.device == processor()
    assert row.megabytes == round(4000 * 1.048576 + WEIGHTS["sd1"][2] * 4)


def test_a_later_bench_keeps_what_a_run_knew_of_pictures():
    remember(replace(measured_row(result()), picture_seconds=6.0))
    keep(result(seconds=0.25))
    (row,) = measured_here()
    assert (row.seconds, row.picture_seconds) == (0.25, 6.0)


def test_a_bench_remembers_by_itself(monkeypatch):
    monkeypatch.setattr(suite, "measure", lambda work, **options: result(work))
    suite.one(GPU_WORK, steps=1, warm_up=1, beside="", seconds=0, began=0.0)
    assert [row.seconds for row in measured_here()] == [0.5]
