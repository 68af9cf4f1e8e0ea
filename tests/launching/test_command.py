"""Settings to the command that starts several processes, and what is refused before it."""

import sys

import pytest

from kit import planning
from kit.errors import KitError
from kit.hosts import Gpu, gpus
from kit.launching import command as commands
from kit.launching.command import (
    Launch,
    command,
    environment,
    idle_switch,
    is_launched,
    launch_for,
    told,
)
from kit.launching.gpus import there, visible
from kit.settings import Machine, Settings
from kit.settings.launch_args import parse_launch_args
from kit.settings.rules import problems
from tests.support.toys import draw_images, toy_settings

T4 = Gpu("Tesla T4", 16106)
MACHINES = "--machine_rank 1 --main_process_ip 10.0.0.1"


def flags(machine, count=2):
    launch = launch_for(machine, [T4] * count)
    words = command(launch, machine, ["train", "run.toml"])
    assert words[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert words[-4:] == ["-m", "kit", "train", "run.toml"]
    return " ".join(words[3:-4])


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(commands.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_one_process_is_no_launch():
    assert launch_for(Machine(), [T4] * 2) is None
    assert launch_for(Machine(gpu_ids="1"), [T4] * 2) is None


def test_two_processes_are_asked_for_so_that_accelerate_cannot_start_one():
    assert flags(Machine(num_processes=2)) == (
        "--multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 "
        "--num_cpu_threads_per_process 4 --mixed_precision no --dynamo_backend no"
    )


def test_every_field_has_its_place_in_the_command():
    machine = Machine(
        num_processes=4,
        num_machines=2,
        gpu_ids="2,0,1",
        main_process_port=29501,
        num_cpu_threads_per_process=3,
        extra_accelerate_launch_args=MACHINES,
    )
    assert flags(machine, 3) == (
        "--multi_gpu --num_processes 4 --num_machines 2 --main_process_port 29501 "
        f"{MACHINES} --gpu_ids 2,0 --num_cpu_threads_per_process 3 --mixed_precision no "
        "--dynamo_backend no"
    )


def test_machines_meet_at_a_port_that_all_of_them_know():
    machine = Machine(num_processes=2, num_machines=2, extra_accelerate_launch_args=MACHINES)
    assert "--main_process_port" not in flags(machine)  # accelerate's own, 29500


@pytest.mark.parametrize(("count", "processes"), [(2, 2), (3, 3), (1, 1), (0, 1)])
def test_a_plan_counts_the_processes_that_multi_gpu_alone_means(
    tmp_path, monkeypatch, count, processes
):
    monkeypatch.setattr(commands, "there", lambda: (T4,) * count)
    images = draw_images(tmp_path / "images")
    asked = toy_settings(tmp_path / "model", images, tmp_path / "out", multi_gpu=True)
    assert planning.plan(asked).processes == processes
    assert planning.plan(asked.replace(num_processes=2)).processes == 2


def test_multi_gpu_means_every_gpu_or_every_one_that_is_named():
    assert launch_for(Machine(multi_gpu=True), [T4] * 3) == Launch(3, 3)
    assert launch_for(Machine(multi_gpu=True, gpu_ids="2,0"), [T4] * 3) == Launch(2, 2, (2, 0))
    assert launch_for(Machine(multi_gpu=True, num_processes=2), [T4] * 3) == Launch(2, 2)
    assert launch_for(Machine(multi_gpu=True), [T4]) is None
    assert launch_for(Machine(multi_gpu=True), []) is None


def test_on_a_cpu_processes_share_it():
    assert launch_for(Machine(num_processes=3, gpu_ids="0,1,2"), []) == Launch(3, 3)
    assert commands._threads(Launch(3, 3), Machine()) == 2


def test_more_processes_than_gpus_are_refused_with_what_is_possible():
    with pytest.raises(KitError) as refusal:
        launch_for(Machine(num_processes=4), [T4] * 2)
    assert refusal.value.found == (
        "num_processes = 4: 4 GPUs are wanted, and there are 2 on this machine."
    )
    assert refusal.value.do.startswith("Set num_processes = 2, or gradient_accumulation_steps")
    with pytest.raises(KitError, match="gpu_ids names GPU 5, which is not there"):
        launch_for(Machine(num_processes=2, gpu_ids="0,5"), [T4] * 2)
    assert launch_for(Machine(num_processes=4, num_machines=2), [T4] * 2) == Launch(4, 2)


def test_gpus_that_are_hidden_here_stay_hidden(monkeypatch):
    monkeypatch.setattr("kit.launching.gpus.gpus", lambda: (T4,) * 4)
    assert len(there()) == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert len(there()) == 2
    assert "--gpu_ids 1,3 " in flags(Machine(num_processes=2, gpu_ids="1,0"))
    for hidden in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert there() == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f,GPU-3a,-1,0")
    assert there() == (T4, T4)
    assert visible("1") == "GPU-3a"


def test_all_gpus_are_told_in_their_order(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'A, 1000'\necho 'B, with it, 2000'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    gpus.cache_clear()
    assert gpus() == (Gpu("A", 1048), Gpu("B, with it", 2097))
    gpus.cache_clear()


def test_what_is_shown_can_be_typed():
    machine = Machine(num_processes=2, extra_accelerate_launch_args='--role "my run"')
    text = told(Launch(2, 2), machine, ["train", "my cat.toml"])
    assert text.startswith("accelerate launch --multi_gpu --num_processes 2 ")
    assert "--role 'my run'" in text
    assert text.endswith("-m kit train 'my cat.toml'")


def test_the_processes_know_how_many_they_must_be(monkeypatch):
    for name in commands.OF_A_LAUNCH:
        monkeypatch.delenv(name, raising=False)
    assert not is_launched()
    asked = environment(2)
    assert asked["LORA_KIT_PROCESSES"] == "2"
    for name in ("LORA_KIT_PROCESSES", "WORLD_SIZE", "MASTER_PORT"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, "2")
            assert is_launched()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("--machine-rank=1 --same_network", ("--machine_rank", "1", "--same_network")),
        ('--rdzv_conf "timeout=60, x=1"', ("--rdzv_conf", "timeout=60, x=1")),
    ],
)
def test_extra_arguments_are_read(text, words):
    assert parse_launch_args(text) == words


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("--use_deepspeed", "does not train with DeepSpeed"),
        ("--zero_stage 2", "does not train with DeepSpeed"),
        ("--deepspeed_config_file a.json", "does not train with DeepSpeed"),
        ("--num_processes 4", "--num_processes has a setting of its own"),
        ("--gpu_ids=0,1", "--gpu_ids has a setting of its own"),
        ("--use_fsdp", "train here in one way"),
        ("--cpu", "train here in one way"),
        ("--machine_rang 1", "did you mean machine_rank"),
        ("--machine_rank", "--machine_rank has no value"),
        ("--debug other.py", "begins with two dashes"),
        ("--debug=yes", "--debug takes no value"),
        ("-m other", "begins with two dashes"),
        ('--role "x', "close every quote"),
        ("--role " + "x" * 3000, "characters"),
    ],
)
def test_extra_arguments_that_would_train_otherwise_are_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse_launch_args(text)
    settings = Settings().replace(num_processes=2, extra_accelerate_launch_args=text)
    [problem] = problems(settings)
    assert problem.startswith("[machine] extra_accelerate_launch_args: ")


def test_a_secret_among_them_is_never_repeated():
    with pytest.raises(ValueError, match="is not passed on") as refusal:
        parse_launch_args("--aws_secret_access_key=abc123")
    assert "abc123" not in str(refusal.value)


def test_a_switch_for_every_gpu_is_told_to_be_idle_where_there_is_one(monkeypatch):
    for name in commands.OF_A_LAUNCH:
        monkeypatch.delenv(name, raising=False)
    for found, words in (
        ((), ["multi_gpu has no effect: no NVIDIA GPU is there"]),
        ((T4,), ["multi_gpu has no effect: one GPU is there"]),
        ((T4, T4), []),
    ):
        monkeypatch.setattr(commands, "there", lambda found=found: found)
        assert list(idle_switch(Machine(multi_gpu=True))) == words
        assert list(idle_switch(Machine())) == []
