"""Threads and GPUs: what is asked for is used, changes no number, and is given back."""

import os
import threading

import pytest
import torch

from kit import devices, planning
from kit.caching.prefetch import Prefetcher
from kit.errors import DatasetError, DeviceError
from kit.settings import Machine, declarations
from kit.training.loop import train
from kit.training.step import TrainingStep
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

WORKERS = {"max_data_loader_n_workers": 3, "train_batch_size": 2}
LIVE = {"cache_latents": False, "random_crop": True, "flip_aug": True, "color_aug": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"))


def reading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("reading")]


def test_values_are_made_once_by_whoever_comes_first():
    made = []
    ahead = Prefetcher(lambda key: made.append(key) or key * 2, workers=2)
    ahead.prefetch([1, 2, 2])
    assert [ahead.take(key) for key in (2, 1, 5)] == [4, 2, 10]
    assert sorted(made) == [1, 2, 5]
    ahead.close()
    assert not reading_threads()


def test_without_workers_nothing_is_made_ahead():
    ahead = Prefetcher(pytest.fail, workers=0)
    ahead.prefetch([1])
    assert not reading_threads()


def test_a_failure_is_raised_where_the_value_is_taken():
    def fail(key):
        raise DatasetError(f"{key} is broken")

    ahead = Prefetcher(fail, workers=1)
    ahead.prefetch(["a", "b"])
    with pytest.raises(DatasetError, match="a is broken"):
        ahead.take("a")
    ahead.close()


def test_released_threads_finish_what_is_prefetched():
    ahead = Prefetcher(lambda key: key + 1, workers=1)
    ahead.prefetch(range(20))
    ahead.release_threads()
    assert [ahead.take(key) for key in range(20)] == list(range(1, 21))
    ahead.close()


@pytest.mark.parametrize("changes", [LIVE, {}], ids=["live", "cached"])
def test_workers_change_no_number_and_leave_no_thread(model, images, tmp_path, changes):
    plain = run(toy_settings(model, images, tmp_path / "a", **changes, train_batch_size=2))
    ahead = run(toy_settings(model, images, tmp_path / "b", **changes, **WORKERS))
    assert losses(ahead) == losses(plain)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    assert not reading_threads()


def test_a_run_goes_on_with_another_number_of_workers(model, images, tmp_path):
    straight = run(toy_settings(model, images, tmp_path / "a", **LIVE))
    first = leave_after(3, toy_settings(model, images, tmp_path / "b", **LIVE))
    assert not reading_threads()
    more = toy_settings(
        model, images, tmp_path / "b", **LIVE,
        max_data_loader_n_workers=2, persistent_data_loader_workers=True,
    )  # fmt: skip
    assert planning.plan(more).run.from_step == 3
    assert losses(first) + losses(run(more)) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_only_what_changes_no_number_lets_a_run_go_on():
    free = {name for name, declared in declarations().items() if not declared.shapes_run}
    assert {"output_dir", "output_name", "seed", "gpu_ids"} <= free
    assert not free & {"learning_rate", "resolution", "network_dim", "cache_latents"}


def test_the_number_of_threads_is_as_before_after_a_failure(model, images, tmp_path):
    before = torch.get_num_threads()
    settings = toy_settings(
        model, images, tmp_path / "a", num_cpu_threads_per_process=before + 1, vae="nowhere"
    )
    with pytest.raises(Exception, match="vae = nowhere"):
        list(train(planning.plan(settings)))
    assert torch.get_num_threads() == before


def on_two_gpus(patch):
    current = [0]
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "device_count", lambda: 2)
    patch.setattr(torch.cuda, "current_device", lambda: current[0])
    patch.setattr(torch.cuda, "set_device", lambda gpu: current.__setitem__(0, gpu))
    return current


def test_the_gpu_that_is_asked_for_is_current_while_it_works(monkeypatch):
    current = on_two_gpus(monkeypatch)
    with devices.at_work(Machine(gpu_ids="1")):
        assert current == [1]
        assert torch.get_num_threads() == devices.THREADS_BESIDE_GPU
    assert current == [0]


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    on_two_gpus(monkeypatch)
    with pytest.raises(DeviceError, match=r"GPU 2[\s\S]*0, 1"):
        devices.choose_device(Machine(gpu_ids="2"))
    with devices.at_work(Machine(gpu_ids="2")):  # does not hide that message behind CUDA's own
        pass


def test_a_gpu_on_a_machine_without_one_is_told(model, images, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    told = leave_after(1, toy_settings(model, images, tmp_path / "a", gpu_ids="0"))
    assert any("gpu_ids has no effect" in getattr(event, "text", "") for event in told)


def test_a_kernel_without_a_deterministic_form_names_the_setting(
    model, images, tmp_path, monkeypatch
):
    def loss(self, batch):
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but")

    monkeypatch.setattr(TrainingStep, "loss", loss)
    with pytest.raises(DeviceError, match=r"deterministic: cumsum[\s\S]*Turn deterministic off"):
        run(toy_settings(model, images, tmp_path / "a", deterministic=True))
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with pytest.raises(RuntimeError, match="cumsum"):  # without the setting it is another matter
        run(toy_settings(model, images, tmp_path / "b"))


def test_a_deterministic_run_on_a_cpu_is_the_same_run(model, images, tmp_path):
    plain = run(toy_settings(model, images, tmp_path / "a"))
    asked = run(toy_settings(model, images, tmp_path / "b", deterministic=True))
    assert losses(asked) == losses(plain)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_accelerate_does_not_see_what_was_set_for_it(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")  # divides every loss
    monkeypatch.setenv("WORLD_SIZE", "2")
    accelerator = devices.make_accelerator(torch.device("cpu"), "no")
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.num_processes == 1
    assert os.environ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "4"


def test_the_most_gpu_memory_is_what_torch_says(monkeypatch):
    counted = {
        "allocated_bytes": {
            pool: {"current": 1, "peak": peak, "allocated": 2, "freed": 3}
            for pool, peak in (("all", 5_400_000), ("small_pool", 7_000_000))
        },
        "num_ooms": 0,
    }

    def nested(device=None):
        return counted

    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", nested)
    monkeypatch.setattr("torch.cuda.memory.memory_stats_as_nested_dict", nested)
    gpu = torch.device("cuda", 0)
    assert torch.cuda.max_memory_allocated(gpu) == 5_400_000
    assert devices.peak_megabytes(gpu) == 5
    counted.clear()  # before anything is computed there
    assert devices.peak_megabytes(gpu) == 0
