import os
from pathlib import Path

import pytest

from kit import hosts
from kit.hosts import Gpu, Host, cache_folder, gpu, host


def host_with(environment=None, modules=(), mounted=()):
    return host(
        environment=environment or {},
        modules=modules,
        is_mounted=lambda path: path.as_posix() in mounted,
    )


def test_without_any_sign_it_is_a_plain_machine_and_files_stay_here():
    assert host_with() == Host("plain", Path(), Path("output"), persistent=True)


@pytest.mark.parametrize("sign", ["COLAB_RELEASE_TAG", "COLAB_GPU"])
def test_colab_is_known_by_its_variables(sign):
    assert host_with({sign: "1"}).name == "colab"


def test_colab_is_known_by_its_module():
    assert host_with(modules={"google.colab"}).name == "colab"


def test_colab_keeps_results_on_drive_once_it_is_mounted():
    colab = host_with({"COLAB_GPU": "1"}, mounted={"/content/drive"})
    assert colab.output_folder == Path("/content/drive/MyDrive/loras")
    assert colab.persistent


def test_colab_without_drive_says_that_results_will_be_lost():
    colab = host_with({"COLAB_GPU": "1"})
    assert colab.output_folder == Path("/content/output")
    assert not colab.persistent


def test_kaggle_wins_over_colabs_module_because_its_images_carry_it():
    assert host_with({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, {"google.colab"}).name == "kaggle"


@pytest.mark.parametrize(("run_type", "kept"), [("Interactive", False), ("Batch", True)])
def test_kaggle_keeps_the_output_of_batch_runs_only(run_type, kept):
    kaggle = host_with({"KAGGLE_KERNEL_RUN_TYPE": run_type})
    assert kaggle.data_folder == Path("/kaggle/input")
    assert kaggle.output_folder == Path("/kaggle/working")
    assert kaggle.persistent is kept


@pytest.mark.parametrize(("mounted", "kept"), [((), False), (("/workspace",), True)])
def test_runpod_keeps_what_lies_on_a_volume(mounted, kept):
    runpod = host_with({"RUNPOD_POD_ID": "abc"}, mounted=mounted)
    assert runpod.name == "runpod"
    assert runpod.output_folder == Path("/workspace/output")
    assert runpod.persistent is kept


@pytest.mark.parametrize("sign", ["VSCODE_PID", "VSCODE_CWD"])
def test_vscode_uses_the_folders_of_a_plain_machine(sign):
    assert host_with({sign: "1"}) == Host("vscode", Path(), Path("output"), persistent=True)


def test_vscode_connected_to_a_pod_is_the_pod():
    assert host_with({"VSCODE_PID": "1", "RUNPOD_POD_ID": "abc"}).name == "runpod"


def test_an_empty_variable_is_no_sign():
    assert host_with({"COLAB_GPU": ""}).name == "plain"


def test_the_real_environment_is_read_when_nothing_is_given(monkeypatch):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE", "COLAB_RELEASE_TAG", "COLAB_GPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(os.environ, "RUNPOD_POD_ID", "abc")
    assert host().name == "runpod"


def test_downloads_and_figures_lie_where_they_outlive_the_session(monkeypatch, tmp_path):
    monkeypatch.delenv("LORA_KIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(host_with()) == tmp_path / "lora-kit"
    pod = host_with({"RUNPOD_POD_ID": "1"}, mounted={"/workspace"})
    assert cache_folder(pod) == Path("/workspace/.cache/lora-kit")
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "mine"))
    assert cache_folder(pod) == tmp_path / "mine"


SMI = "#!/bin/sh\necho 'Tesla T4, 15360'\necho 'Tesla T4, 15360'\n"


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (SMI, Gpu("Tesla T4", 16106)),
        ("#!/bin/sh\nexit 9\n", None),
        ("#!/bin/sh\necho No devices were found\n", None),
        ("", None),
    ],
)
def test_the_gpu_is_known_without_torch(monkeypatch, tmp_path, script, found):
    if script:
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    hosts.gpus.cache_clear()
    assert gpu() == found
    hosts.gpus.cache_clear()


def test_a_secret_is_asked_for_once_and_then_known_to_every_thread(monkeypatch):
    asked = []
    monkeypatch.setattr(hosts, "_asked", {})
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    monkeypatch.delenv("CIVITAI_TOKEN", raising=False)
    monkeypatch.setitem(hosts._STORES, "colab", lambda name: asked.append(name) or " s3cr3t ")
    hosts.ask_for_secrets("CIVITAI_TOKEN")
    assert hosts.secret("CIVITAI_TOKEN") == "s3cr3t"
    assert asked == ["CIVITAI_TOKEN"]
    hosts.ask_for_secrets("CIVITAI_TOKEN")  # the cell was run again
    assert asked == ["CIVITAI_TOKEN"] * 2
