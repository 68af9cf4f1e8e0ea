"""What of the computer a run uses."""

import os
import threading
from pathlib import Path

import pytest
import torch

from kit import devices, planning
from kit.caching import prefetch
from kit.events import Finished, Loaded
from kit.hosts import Gpu
from kit.launching.command import command, launch_for
from kit.optim.learning_rates import rates_of
from kit.training import engine_choice
from kit.training.engine import EagerEngine
from kit.training.graph_engine import GraphEngine
from kit.training.loop import train
from kit.training.sharding import local_numbers
from kit.training.step import TrainingStep
from tests.effects.stage import Row
from tests.support.ranks import train_in
from tests.support.recorded_calls import RecordedCalls

LIVE = {"cache_latents": False}
AHEAD = {**LIVE, "max_data_loader_n_workers": 2}


def threads(stage, settings):
    """Torch's threads while a run trains; afterwards they are what they were."""
    before, during = torch.get_num_threads(), []
    for event in train(planning.plan(settings)):
        if isinstance(event, Loaded):
            during.append(torch.get_num_threads())
            break
    assert torch.get_num_threads() == before
    return during


def gpu(stage, settings):
    """The GPU that is chosen on a machine with two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        return str(devices.choose_device(settings.machine))


def readers(stage, settings):
    """Who opens pictures, and how many pools of threads two epochs take."""
    pools, names = [], set()
    make = prefetch.ThreadPoolExecutor

    def counted(*args, **kwargs):
        pools.append(args)
        return make(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, stage.prepared(settings) as ready:
        patch.setattr(prefetch, "ThreadPoolExecutor", counted)
        pictures = ready.batch_builder.latents.encoder.pictures
        prepared = pictures._make

        def noted(cut):
            names.add(threading.current_thread().name.partition("_")[0])
            return prepared(cut)

        pictures._make = noted
        for number in range(2 * ready.plan.batches_per_epoch):
            ready.batch_builder.batch(number)
    return sorted(names), len(pools)


def compiled(stage, settings):
    """How the U-Net is to be compiled; what that does is seen in
    tests/training/test_compiling.py.
    """
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda call, **options: asked.append(options) or call)
        with stage.prepared(settings):
            return asked


def engine(stage, settings):
    """What makes the steps, where graphs can be had; see tests/training/test_engines.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_choice, "recorder_for", lambda device: RecordedCalls())
        with stage.prepared(settings) as ready:
            return [isinstance(ready.engine, kind) for kind in (GraphEngine, EagerEngine)]


def kernels(stage, settings):
    """Whether only kernels that add in one order are allowed while a run trains, and after it."""
    allowed = torch.are_deterministic_algorithms_enabled
    return [
        (allowed(), allowed_by_cublas())
        for event in train(planning.plan(settings))
        if isinstance(event, Loaded | Finished)
    ] + [(allowed(), allowed_by_cublas())]


def allowed_by_cublas():
    return os.environ.get("CUBLAS_WORKSPACE_CONFIG")


def launched(stage, settings):
    """What starts the processes on a machine with three GPUs, and how many there are."""
    machine = settings.machine
    launch = launch_for(machine, [Gpu("Tesla T4", 16106)] * 3)
    if launch is None:
        return [1, (), ""]
    words = command(launch, machine, ["train"])
    return [launch.processes, launch.gpus, " ".join(words[words.index("--multi_gpu") :])]


def shares(stage, settings):
    """How many millions of the U-Net's weights each of two processes keeps."""
    out = Path(settings.folders.output_dir)
    settings = settings.replace(max_train_steps=1, text_encoder_lr=0.0)

    def prepare(rank):
        whole = TrainingStep.update

        def update(self):
            own = sum(map(local_numbers, self.text.family.unet.parameters()))
            (out / f"{rank}.own").write_text(str(own / 1e6))
            whole(self)

        TrainingStep.update = update

    ended = train_in(2, settings, out / "logs", prepare=prepare)
    assert [each.status for each in ended] == [0, 0], ended
    return [float((out / f"{rank}.own").read_text()) for rank in (0, 1)]


def rates(stage, settings):
    """What the first step learns at."""
    with stage.prepared(settings) as ready:
        return rates_of(ready.optimization)


TWO = {"num_processes": 2}
INDUCTOR = {"dynamo_backend": "inductor"}
ROWS = {
    "num_processes": Row(launched, 3, plain=2),
    "num_machines": Row(
        launched,
        2,
        given={
            **TWO,
            "extra_accelerate_launch_args": "--machine_rank 1 --main_process_ip 10.0.0.1",
        },
    ),
    "multi_gpu": Row(launched, True),
    "scale_lr_by_processes": Row(rates, True, given={**TWO, "lr_scheduler": "constant"}),
    "shard_base": Row(shares, True, given=TWO),
    "main_process_port": Row(launched, 29501, given=TWO),
    "extra_accelerate_launch_args": Row(launched, "--max_restarts 1", given=TWO),
    "num_cpu_threads_per_process": Row(threads, 3, plain=1),
    "gpu_ids": Row(gpu, "1,0"),
    "max_data_loader_n_workers": Row(readers, 2, given=LIVE),
    "persistent_data_loader_workers": Row(readers, True, given=AHEAD),
    "dynamo_backend": Row(compiled, "inductor"),
    "dynamo_mode": Row(compiled, "max-autotune", given=INDUCTOR),
    "dynamo_use_fullgraph": Row(compiled, True, given=INDUCTOR),
    "dynamo_use_dynamic": Row(compiled, True, given=INDUCTOR),
    "step_engine": Row(engine, "eager"),
    "deterministic": Row(kernels, True),
}
