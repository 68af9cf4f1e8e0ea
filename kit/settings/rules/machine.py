"""Rules about the computer: GPUs, threads, compiling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kit import catalog

if TYPE_CHECKING:
    from kit.settings import Settings


def gpu_ids(text: str) -> tuple[int, ...]:
    """The numbers of GPUs that "1,0" names; none where it is blank.

    Raises: ValueError where it names something else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{text!r} is no list of GPU numbers")
    return tuple(int(part) for part in parts)


def _gpu_numbers(settings: Settings) -> Iterator[str]:
    text = settings.machine.gpu_ids
    try:
        gpu_ids(text)
    except ValueError:
        yield (
            f"[machine] gpu_ids: {text!r} is not understood; write a number from 0, such as 1, or "
            "leave it blank"
        )


def _further_gpus(settings: Settings) -> Iterator[str]:
    text = settings.machine.gpu_ids
    if text.replace(",", "").replace(" ", "").isdecimal() and len(gpu_ids(text)) > 1:
        first, *others = gpu_ids(text)
        named = ", ".join(map(str, others))
        yield f"gpu_ids = {text}: {first} trains, {named} have no effect; a run uses one GPU"


def _threads_to_keep(settings: Settings) -> Iterator[str]:
    machine = settings.machine
    if machine.persistent_data_loader_workers and not machine.max_data_loader_n_workers:
        yield "persistent_data_loader_workers has no effect: max_data_loader_n_workers is 0"


def _gone_backend(settings: Settings) -> Iterator[str]:
    backend = settings.machine.dynamo_backend
    if catalog.COMPILERS[backend].gone:
        yield (f"[machine] dynamo_backend: {backend} left PyTorch years ago; set inductor, or no")


def _idle_compiling(settings: Settings) -> Iterator[str]:
    machine = settings.machine
    row = catalog.COMPILERS[machine.dynamo_backend]
    if machine.dynamo_backend == "no":
        for name in ("dynamo_mode", "dynamo_use_fullgraph", "dynamo_use_dynamic"):
            if name in settings.changed():
                yield f"{name} has no effect: dynamo_backend is no"
    elif machine.dynamo_mode != "default" and not row.has_modes:
        yield f"dynamo_mode has no effect: dynamo_backend = {machine.dynamo_backend} has no modes"


PROBLEMS = (_gpu_numbers, _gone_backend)
NOTICES = (_further_gpus, _threads_to_keep, _idle_compiling)
