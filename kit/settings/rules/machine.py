"""Rules about the computer: GPUs, threads, compiling."""

from __future__ import annotations

from collections.abc import Iterator

from kit import catalog
from kit.settings import Machine
from kit.settings.effective import gpu_ids
from kit.settings.rules.rule import Changed, notice, problem


@problem
def gpu_numbers(machine: Machine) -> Iterator[str]:
    text = machine.gpu_ids
    try:
        gpu_ids(text)
    except ValueError:
        yield (
            f"[machine] gpu_ids: {text!r} is not understood; write a number from 0, such as 1, or "
            "leave it blank"
        )


@notice
def further_gpus(machine: Machine) -> Iterator[str]:
    text = machine.gpu_ids
    try:
        first, *others = gpu_ids(text)
    except ValueError:  # none, or what `gpu_numbers` tells
        return
    if others:
        named = ", ".join(map(str, others))
        yield f"gpu_ids = {text}: {first} trains, {named} have no effect; a run uses one GPU"


@notice
def threads_to_keep(machine: Machine) -> Iterator[str]:
    if machine.persistent_data_loader_workers and not machine.max_data_loader_n_workers:
        yield "persistent_data_loader_workers has no effect: max_data_loader_n_workers is 0"


@problem
def gone_backend(machine: Machine) -> Iterator[str]:
    backend = machine.dynamo_backend
    if catalog.COMPILERS[backend].gone:
        yield f"[machine] dynamo_backend: {backend} left PyTorch years ago; set inductor, or no"


@notice
def idle_compiling(machine: Machine, changed: Changed) -> Iterator[str]:
    row = catalog.COMPILERS[machine.dynamo_backend]
    if machine.dynamo_backend == "no":
        for name in ("dynamo_mode", "dynamo_use_fullgraph", "dynamo_use_dynamic"):
            if name in changed:
                yield f"{name} has no effect: dynamo_backend is no"
    elif machine.dynamo_mode != "default" and not row.has_modes:
        yield f"dynamo_mode has no effect: dynamo_backend = {machine.dynamo_backend} has no modes"


@notice
def compiled_instead(machine: Machine) -> Iterator[str]:
    if machine.step_engine == "graph" and machine.dynamo_backend != "no":
        yield (
            f"step_engine = graph has no effect: dynamo_backend = {machine.dynamo_backend} makes "
            "the step its own way"
        )
