"""Time and memory before Train: from measured runs alone, each scaled by one rule."""

import pytest

from kit import demo, hosts, planning
from kit.events import Loaded, Sampled, Stepped
from kit.hosts import Gpu
from kit.planning import forecast as module
from kit.planning.forecast import UNKNOWN, forecast, shipped
from kit.runs import measured as measured_module
from kit.runs.measured import Measured, best_of, measured_here, remember, work_of
from kit.settings import Settings
from kit.sinks.measuring import Measuring

T4 = Gpu("Tesla T4", 15_000)
H100 = Gpu("NVIDIA H100 80GB HBM3", 85_000)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine whose GPU can be chosen, and which has measured nothing yet."""
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))

    def with_gpu(card):
        monkeypatch.setattr(module, "gpu", lambda: card)

    with_gpu(T4)
    return with_gpu


NO_SAMPLES = {"sample_prompts": "", "sample_every_n_steps": None, "sample_every_n_epochs": None}
NO_SAMPLES["sample_at_first"] = False


def plan_of(tmp_path, **changes):
    changes = {**(NO_SAMPLES if changes.get("sample_prompts") == "" else {}), **changes}
    settings = demo.settings().replace(output_dir=str(tmp_path / "output"), **changes)
    return planning.plan(settings)


def measured(plan, seconds=2.0, megabytes=9_800, device=T4.name, **rest):
    work = {**work_of(plan.settings, "sd1"), **rest.pop("work", {})}
    return Measured(device, work, seconds, megabytes, **rest)


def test_what_was_never_measured_is_not_known(machine, tmp_path):
    assert forecast(plan_of(tmp_path)) == UNKNOWN
    machine(None)
    assert forecast(plan_of(tmp_path)) == UNKNOWN


def test_a_run_that_was_measured_here_tells_the_next_one(machine, tmp_path):
    plan = plan_of(tmp_path, max_train_steps=420, sample_prompts="")
    remember(measured(plan))
    assert forecast(plan) == "About 14 min on this T4, 9.8 of 15 GB"


def test_time_grows_with_the_steps_and_with_the_pictures(machine, tmp_path):
    remember(measured(plan_of(tmp_path), picture_seconds=6.0))
    few = plan_of(tmp_path, max_train_steps=30, sample_prompts="")
    assert forecast(few).startswith("About 60 s ")
    drawn = plan_of(
        tmp_path,
        max_train_steps=30,
        sample_prompts="a ball\na cube",
        sample_every_n_steps=15,
        sample_every_n_epochs=None,
        sample_at_first=False,
    )
    assert forecast(drawn).startswith("About 84 s ")  # 2 times 2 pictures of 6 s


def test_validation_is_counted(machine, tmp_path):
    plan = plan_of(tmp_path, max_train_steps=420, sample_prompts="", validate_every_n_steps=40)
    without = plan_of(tmp_path, max_train_steps=420, sample_prompts="")
    remember(measured(plan))
    share = plan.validation.share
    assert 0.05 < share < 0.5
    minutes = round(420 * 2 / (1 - share) / 60)  # 2 s a step, and what is beside them
    assert minutes > 14
    assert forecast(plan).startswith(f"About {minutes} min ")
    assert forecast(without).startswith("About 14 min ")


def test_only_the_rest_of_a_run_is_to_come(machine, tmp_path, monkeypatch):
    plan = plan_of(tmp_path, max_train_steps=420, sample_prompts="")
    remember(measured(plan))
    monkeypatch.setattr(type(plan), "from_step", 400)
    assert forecast(plan).startswith("About 40 s ")


@pytest.mark.parametrize(
    ("differs", "is_told"),
    [
        ({"network_dim": 128}, "another network_dim"),
        ({"train_batch_size": 7}, ""),
        ({"resolution": "1x1"}, ""),
        ({"family": "sdxl"}, ""),
        ({"learns": "unet and something"}, ""),
    ],
)
def test_figures_of_other_work_are_told_as_such_or_not_at_all(machine, tmp_path, differs, is_told):
    plan = plan_of(tmp_path)
    remember(measured(plan, work=differs))
    told = forecast(plan)
    assert (is_told in told and told != UNKNOWN) if is_told else told == UNKNOWN


def test_another_gpu_tells_nothing(machine, tmp_path):
    plan = plan_of(tmp_path)
    remember(measured(plan, device="NVIDIA A100"))
    assert forecast(plan) == UNKNOWN


def test_without_a_gpu_the_processor_counts(machine, tmp_path):
    machine(None)
    plan = plan_of(tmp_path, max_train_steps=10, sample_prompts="")
    remember(measured(plan, 1.0, 1_234, device=hosts.processor()))
    assert forecast(plan) == f"About 10 s on this {module._called(hosts.processor())}, 1.2 GB"


def test_a_full_model_is_not_forecast_from_the_miniature_nor_the_other_way_round(machine, tmp_path):
    """Both are Stable Diffusion 1.x, and one is a hundred times as large."""
    machine(None)
    small = plan_of(tmp_path, pretrained_model_name_or_path=str(demo.BASE), resolution="64,64")
    large = plan_of(
        tmp_path, pretrained_model_name_or_path="stable-diffusion-v1-5/stable-diffusion-v1-5"
    )
    remember(Measured(hosts.processor(), {**work_of(small.settings, "sd1")}, 0.6, 800))
    assert forecast(small).startswith("About ")
    assert forecast(large) == UNKNOWN
    file = measured_module._file()
    file.write_text(file.read_text().replace('"miniature": true,', ""))  # of an older version
    assert forecast(small).startswith("About ")
    assert forecast(large) == UNKNOWN
    file.unlink()
    remember(Measured(hosts.processor(), {**work_of(large.settings, "sd1")}, 60.0, 8_000))
    assert forecast(large).startswith("About ")
    assert forecast(small) == UNKNOWN


def test_the_newest_figure_of_equal_work_counts_and_equal_work_before_similar(tmp_path):
    work = work_of(Settings(), "sd1")
    old, new = Measured("T4", work, 1.0, 1), Measured("T4", work, 2.0, 1)
    similar = Measured("T4", {**work, "network_dim": 1}, 3.0, 1)
    assert best_of([old, new, similar], "T4", work) == (new, ())
    assert best_of([similar], "T4", work) == (similar, ("network_dim",))


def test_shipped_figures_are_of_commands_that_measured_them(machine, tmp_path):
    machine(H100)
    rows = shipped()
    assert all(row.source and row.device == H100.name for row in rows)
    known = set(work_of(Settings()))
    assert all(set(row.work) <= known for row in rows)
    plan = plan_of(
        tmp_path,
        pretrained_model_name_or_path="stabilityai/stable-diffusion-xl-base-1.0",
        resolution="1024,1024", mixed_precision="bf16", optimizer_type="AdamW", network_dim=8,
        text_encoder_lr=0.0, unet_lr=1e-4, train_batch_size=1, gradient_checkpointing=False,
        cache_latents=True, cache_text_encoder_outputs=False, max_train_steps=600,
        sample_prompts="", LoRA_type="Standard",
    )  # fmt: skip
    told = forecast(plan)
    assert told.startswith("About 7 min on this H100 80GB HBM3, 15.7 of 85 GB (measured on such")


def test_what_does_not_fit_is_told(machine, tmp_path):
    plan = plan_of(tmp_path)
    remember(measured(plan, megabytes=17_000))
    assert "17.0 of 15 GB: that will not fit" in forecast(plan)


def test_a_run_leaves_its_median_and_its_most_memory(machine, tmp_path):
    plan = plan_of(tmp_path)
    sink = Measuring(work_of(plan.settings))
    sink(Loaded("Stable Diffusion 1.x", "Tesla T4 (cuda:0)", "fp16", 1, 1, 0))
    for step, seconds in enumerate([9, 9, 9, 1, 2, 3, 2, 50], 1):
        sink(Stepped(step, 1.0, 0.1, 0.1, seconds=seconds, megabytes=1000 + step))
    sink(Sampled(8, 0, "x.png", "a ball", 1))
    assert measured_here() == []
    sink.close()
    (row,) = measured_here()
    assert (row.device, row.seconds, row.megabytes) == ("Tesla T4", 2.0, 1008)
    assert row.work["family"] == "sd1"
    assert row.picture_seconds < 1
    assert forecast(plan).startswith("About ")


def test_a_run_of_few_steps_leaves_nothing(machine, tmp_path):
    sink = Measuring(work_of(Settings()))
    sink(Loaded("sd1", "CPU, 2 threads", "no", 1, 1, 0))
    for step in range(1, 8):
        sink(Stepped(step, 1.0, 0.1, 0.1, seconds=1.0))
    sink.close()
    assert measured_here() == []


def test_a_damaged_file_is_no_figure_and_is_written_anew(machine, tmp_path):
    file = tmp_path / "cache" / "measured.json"
    file.parent.mkdir()
    for text in ("{", "[1, {}]", '[{"device": 1, "work": 2, "seconds": 3, "megabytes": 4}]', "{}"):
        file.write_text(text)
        assert measured_here() == []
    remember(measured(plan_of(tmp_path)))
    assert len(measured_here()) == 1


def test_the_file_stays_small(machine, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.runs.measured.MOST", 3)
    plan = plan_of(tmp_path)
    for rank in range(5):
        remember(measured(plan, work={"network_dim": rank}))
    remember(measured(plan, 3.0, work={"network_dim": 4}))
    assert [row.work["network_dim"] for row in measured_here()] == [2, 3, 4]
    assert measured_here()[-1].seconds == 3.0


def test_a_place_that_cannot_be_written_disturbs_nobody(machine, tmp_path):
    (tmp_path / "cache").write_text("a file")
    sink = Measuring(work_of(Settings()))
    sink(Loaded("sd1", "CPU, 2 threads", "no", 1, 1, 0))
    for step in range(1, 20):
        sink(Stepped(step, 1.0, 0.1, 0.1, seconds=1.0))
    sink.close()


def test_on_colab_figures_are_kept_on_drive(monkeypatch, tmp_path):
    from tests.support.places import be_colab_like

    here = be_colab_like(monkeypatch, tmp_path)
    monkeypatch.setattr("kit.runs.measured.host", lambda: here)
    remember(Measured("T4", {}, 1.0, 1))
    assert (here.output_folder / ".lora-kit" / "measured.json").is_file()


def test_a_real_run_is_remembered_and_tells_the_next(machine, tmp_path):
    import kit

    machine(None)
    plan = plan_of(tmp_path, max_train_steps=10, sample_prompts="", output_name="first")
    for _ in kit.train(plan):
        pass
    (row,) = measured_here()
    assert row.device == hosts.processor()
    assert row.seconds > 0
    assert row.megabytes > 100
    assert forecast(plan_of(tmp_path, max_train_steps=20, sample_prompts="")) != UNKNOWN
