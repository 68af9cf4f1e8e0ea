"""Devices of torch and the precisions that they can train in."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from kit import catalog
from kit.errors import DeviceError
from kit.processes import COUNT, LOCAL_RANK, RANK, here
from kit.settings import Machine
from kit.settings.effective import gpu_ids

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # without it cuBLAS may choose its order anew at each call
THREADS_BESIDE_GPU = 2  # for a GPU's run more bring nothing, and other processes want some


@contextmanager
def at_work(machine: Machine) -> Iterator[None]:
    """GPU, number of threads and kernels that are asked for; all as before after the block."""
    threads = torch.get_num_threads()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpu = torch.cuda.current_device() if gpus else 0
    asked = machine.num_cpu_threads_per_process or (THREADS_BESIDE_GPU if gpus else threads)
    torch.set_num_threads(asked)
    if gpus > _first_gpu(machine, gpu):
        torch.cuda.set_device(_first_gpu(machine, gpu))
    try:
        with deterministic() if machine.deterministic else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)
        if gpus:
            torch.cuda.set_device(gpu)


@contextmanager
def deterministic() -> Iterator[None]:
    """Kernels that add in one order: on a GPU two equal runs then end in equal files.

    It must not merely warn: attention's backward pass would then stay as it is. Memory is not
    filled beforehand, which torch does to find reads of what was never written.
    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html.
    """
    was = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    utils: Any = torch.utils.deterministic
    filled, given = utils.fill_uninitialized_memory, os.environ.get(CUBLAS)
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    utils.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        utils.fill_uninitialized_memory = filled
        if given is None:
            del os.environ[CUBLAS]


def lacks_deterministic_kernel(error: BaseException) -> bool:
    """Whether an error says that a kernel has no deterministic form."""
    return isinstance(error, RuntimeError) and "deterministic" in str(error)


def _first_gpu(machine: Machine, current: int) -> int:
    processes = here()
    if processes.count > 1:  # a launcher has chosen which GPUs these are
        return processes.local_rank
    return (*gpu_ids(machine.gpu_ids), current)[0]


def choose_device(machine: Machine | None = None) -> torch.device:
    """CUDA before Apple's MPS before the CPU; of several GPUs the one that is asked for.

    Raises: DeviceError where there is no GPU of that number.
    """
    if torch.cuda.is_available():
        gpu, there = torch.cuda.current_device(), torch.cuda.device_count()
        gpu = _first_gpu(machine, gpu) if machine else gpu
        if gpu >= there and here().count > 1:
            raise DeviceError(
                f"Process {gpu} of this machine has no GPU: there are {there}.",
                "Each process trains on a GPU of its own.",
                f"Start {there}: --num_processes {there}, or --nproc_per_node {there}.",
            )
        if gpu >= there:
            raise DeviceError(
                f"gpu_ids names GPU {gpu}, which is not there.",
                f"There are {there}: " + ", ".join(map(str, range(there))) + ".",
                "Choose one of them, or leave gpu_ids blank.",
            )
        return torch.device("cuda", gpu)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def describe(device: torch.device) -> str:
    """The device in words, e.g. `NVIDIA T4 (cuda:0)`."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    threads = torch.get_num_threads()
    words = "1 thread" if threads == 1 else f"{threads} threads"
    names = {"mps": "Apple GPU (mps)", "cpu": f"CPU, {words}"}
    return names.get(device.type, str(device))


def check_precision(device: torch.device, mixed_precision: str) -> None:
    """Refuse a precision that the device lacks.

    Raises: DeviceError with the precisions that it has.
    """
    possible = _possible(device)
    if mixed_precision not in possible:
        raise DeviceError(
            f"mixed_precision = {mixed_precision} does not work on this device: "
            f"{describe(device)}.",
            f"It can do: {', '.join(possible)}.",
            f"Set mixed_precision = {possible[-1]}.",
        )


def _possible(device: torch.device) -> tuple[str, ...]:
    """What the device computes natively, the best one last."""
    if device.type == "cuda":
        # Emulated bf16 (a T4 with recent torch) would run, many times slower.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("no", "fp16", "bf16") if has_bf16 else ("no", "fp16")
    # Apple's GPUs are only known to train right in 32 bits.
    return ("bf16", "no") if device.type == "cpu" else ("no",)


class HalfScaler(torch.amp.GradScaler):
    """A scaler for weights that are themselves fp16, whose gradients torch's own refuses."""

    def _unscale_grads_(self, optimizer: Any, inv_scale: Any, found_inf: Any, _: bool) -> Any:
        return super()._unscale_grads_(optimizer, inv_scale, found_inf, True)


def make_accelerator(
    device: torch.device, mixed_precision: str, *, half_weights: bool = False
) -> Accelerator:
    """An Accelerator for this run; half_weights: what learns is fp16 itself.

    Raises: DeviceError where several processes were launched.
    """
    # Its state is one per process and refuses another precision: a kernel trains more than once.
    AcceleratorState._reset_state()
    PartialState._reset_state()
    with _alone():
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=device.type == "cpu")
    if accelerator.num_processes > 1:
        raise DeviceError(
            f"{accelerator.num_processes} processes were launched.",
            "LoRA Kit trains in one process.",
            "Start it without accelerate's --num_processes, or with --num_processes 1.",
        )
    if half_weights and accelerator.scaler is not None:
        accelerator.scaler = HalfScaler(device.type)
    return accelerator


@contextmanager
def _alone() -> Iterator[None]:
    """Accelerate sees one process: what several tell each other is told in kit.training.ranks.

    Its own way would wrap what learns and cut batches into pieces. Nor does it see what its
    launcher or a person has set for it, such as another device or a loss divided once more by
    ACCELERATE_GRADIENT_ACCUMULATION_STEPS: the settings decide these.
    """
    names = (COUNT, RANK, LOCAL_RANK)
    hidden = {
        name: os.environ.pop(name)
        for name in tuple(os.environ)
        if name in names or name.startswith("ACCELERATE_")
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


RngState = tuple[torch.Tensor, ...]


def rng_state(device: torch.device) -> RngState:
    """Torch's own generators, of the host and of the device."""
    own = (torch.cuda.get_rng_state(device),) if device.type == "cuda" else ()
    return (torch.get_rng_state(), *own)


def set_rng_state(device: torch.device, state: RngState) -> None:
    """Go on from there."""
    host, *own = state
    torch.set_rng_state(host)
    for each in own:
        torch.cuda.set_rng_state(each, device)


def peak_megabytes(device: torch.device) -> int:
    """The most memory that this process has held: the GPU's, or else the machine's own.

    0 where the system does not tell.
    """
    if device.type == "cuda":
        # torch.cuda.max_memory_allocated sorts all that is counted first, and this is every step's.
        counted = torch.cuda.memory_stats_as_nested_dict(device)
        return int(counted.get("allocated_bytes", {}).get("all", {}).get("peak", 0) / 1e6)
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)  # macOS says bytes


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_memory() -> None:
    """Give memory that nobody holds back to the device, and to the machine."""
    catalog.look_at_all()
    gc.collect()
    give_back()


def give_back() -> None:
    """The same for what is free already: no look for circles of garbage, which takes 0.3 s."""
    with suppress(AttributeError, OSError, TypeError):  # glibc alone keeps holes, and can be asked
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
