"""Rules about the computer: GPUs, threads, compiling."""

from __future__ import annotations

from collections.abc import Iterator

from kit import catalog
from kit.processes import here
from kit.settings import Machine, Memory
from kit.settings.effective import base_precision, gpu_ids, launch_args, trains_together
from kit.settings.launch_args import has, parse_launch_args
from kit.settings.rules.rule import Idle, idle, notice, problem


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


@problem
def processes_by_machine(machine: Machine) -> Iterator[str]:
    count, machines = machine.num_processes, machine.num_machines
    if machines > 1 and count % machines:
        below, above = count // machines * machines, (count // machines + 1) * machines
        nearest = f"{below} or {above}" if below else f"{above}"
        yield (
            f"[machine] num_processes: {count} cannot be divided among num_machines = {machines}; "
            f"set {nearest}, or another num_machines"
        )


@problem
def too_few_gpus_named(machine: Machine) -> Iterator[str]:
    try:
        named = len(set(gpu_ids(machine.gpu_ids)))
    except ValueError:  # which `gpu_numbers` tells
        return
    needed = machine.num_processes // machine.num_machines
    if named and needed > named:
        yield (
            f"[machine] gpu_ids: {machine.gpu_ids} names {named}, and {needed} processes want one "
            f"each; name {needed}, leave it blank, or set num_processes = "
            f"{named * machine.num_machines}"
        )


@problem
def launch_arguments(machine: Machine) -> Iterator[str]:
    try:
        parse_launch_args(machine.extra_accelerate_launch_args)
    except ValueError as error:
        yield f"[machine] extra_accelerate_launch_args: {error}"


@problem
def machines_without_address(machine: Machine) -> Iterator[str]:
    words = launch_args(machine)
    if machine.num_machines == 1 or has(words, "config_file"):
        return
    missing = [name for name in ("machine_rank", "main_process_ip") if not has(words, name)]
    if missing:
        yield (
            f"[machine] num_machines: {machine.num_machines} machines find each other by "
            f"--machine_rank and --main_process_ip; write --{' and --'.join(missing)} into "
            "extra_accelerate_launch_args, or set num_machines = 1"
        )


@problem
def sharded_base(machine: Machine, memory: Memory) -> Iterator[str]:
    if not (machine.shard_base and (trains_together(machine) or here().count > 1)):
        return
    row = catalog.BASE_PRECISIONS[base_precision(memory)]
    if row.code:
        yield (
            f"[machine] shard_base: {row.setting} packs layers in bits that cannot be divided; "
            "turn shard_base off, or keep the base as_mixed_precision"
        )
    if machine.dynamo_backend != "no":
        yield (
            f"[machine] shard_base: dynamo_backend = {machine.dynamo_backend} compiles layers "
            "whose weights come and go; turn shard_base off, or set dynamo_backend = no"
        )
    if machine.step_engine == "graph":
        yield (
            "[machine] shard_base: step_engine = graph records steps, and the processes gather "
            "weights in each, waiting for each other; turn shard_base off, or set step_engine = "
            "auto"
        )


@notice
def further_gpus(machine: Machine) -> Iterator[str]:
    try:
        numbers = list(dict.fromkeys(gpu_ids(machine.gpu_ids)))
    except ValueError:  # which `gpu_numbers` tells
        return
    used = max(1, machine.num_processes // machine.num_machines)
    is_all = machine.multi_gpu and machine.num_processes == 1
    if len(numbers) > used and not is_all:
        train, rest = (", ".join(map(str, each)) for each in (numbers[:used], numbers[used:]))
        processes = "1 process uses one GPU" if used == 1 else f"{used} processes use {used} GPUs"
        yield (
            f"gpu_ids = {machine.gpu_ids}: {train} {'trains' if used == 1 else 'train'}, {rest} "
            f"{'has' if len(numbers) == used + 1 else 'have'} no effect; {processes}"
        )


@idle
def counted_processes(machine: Machine) -> Iterator[Idle]:
    if machine.num_processes > 1:
        yield Idle(f"num_processes = {machine.num_processes} says how many", "multi_gpu")


@idle
def idle_launch(machine: Machine) -> Iterator[Idle]:
    if not trains_together(machine):
        yield Idle("num_processes is 1", "main_process_port", "extra_accelerate_launch_args")
        if here().count == 1:
            yield Idle("num_processes is 1", "scale_lr_by_processes")
            yield Idle("num_processes is 1, so the base lies on one GPU", "shard_base")


@idle
def threads_to_keep(machine: Machine) -> Iterator[Idle]:
    if not machine.max_data_loader_n_workers:
        yield Idle("max_data_loader_n_workers is 0", "persistent_data_loader_workers")


@problem
def gone_backend(machine: Machine) -> Iterator[str]:
    backend = machine.dynamo_backend
    if catalog.COMPILERS[backend].gone:
        yield f"[machine] dynamo_backend: {backend} left PyTorch years ago; set inductor, or no"


@idle
def idle_compiling(machine: Machine) -> Iterator[Idle]:
    backend = machine.dynamo_backend
    if backend == "no":
        names = ("dynamo_mode", "dynamo_use_fullgraph", "dynamo_use_dynamic")
        yield Idle("dynamo_backend = no", *names)
    elif not catalog.COMPILERS[backend].has_modes:
        yield Idle(f"dynamo_backend = {backend} has no modes", "dynamo_mode")


@idle
def compiled_instead(machine: Machine) -> Iterator[Idle]:
    if machine.dynamo_backend != "no":
        why = f"dynamo_backend = {machine.dynamo_backend} makes the step its own way"
        yield Idle(why, "step_engine", asked=machine.step_engine == "graph")
