"""The settings to the command that starts a training in several processes.

accelerate launch --multi_gpu --num_processes 2 --num_machines 1 ... -m kit train run.toml
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.errors import KitError
from kit.hosts import Gpu
from kit.launching.gpus import there, visible
from kit.processes import ASKED, COUNT, LOCAL_RANK, PORT, RANK
from kit.settings import Machine
from kit.settings.effective import gpu_ids, launch_flags
from kit.settings.links import handed_on

# Any of them says that a launcher started this process, be it as the only one.
OF_A_LAUNCH = (ASKED, COUNT, RANK, LOCAL_RANK, PORT, "TORCHELASTIC_RUN_ID")
ROOT = Path(__file__).parents[2]  # where the package lies, if it is not installed


@dataclass(frozen=True)
class Launch:
    """How many processes train, and how many of them on this machine; gpus: numbers of theirs."""

    processes: int
    here: int
    gpus: tuple[int, ...] = ()  # none: the first ones, or no GPU at all


def is_launched() -> bool:
    """This process was started by a launcher of several."""
    return any(os.environ.get(name, "").strip() for name in OF_A_LAUNCH)


def launch_for(machine: Machine, gpus: Sequence[Gpu]) -> Launch | None:
    """The launch that the settings ask for; None where one process trains.

    gpus: those that this machine shows. Without any, processes share its processor.

    Raises: KitError where there are fewer GPUs than processes.
    """
    numbers = tuple(dict.fromkeys(gpu_ids(machine.gpu_ids))) if gpus else ()
    if missing := [number for number in numbers if number >= len(gpus)]:
        raise KitError(
            f"gpu_ids names GPU {missing[0]}, which is not there.",
            f"There are {len(gpus)}: {_counted(gpus)}.",
            "Choose among them, or leave gpu_ids blank.",
        )
    possible = len(numbers) or len(gpus)
    processes = machine.num_processes
    if processes == 1 and machine.multi_gpu:
        processes = max(1, possible)
    if processes == 1:
        return None
    here = max(1, processes // machine.num_machines)
    if gpus and here > possible:
        of_them = f"gpu_ids names {possible}" if numbers else f"{_there(gpus)} on this machine"
        raise KitError(
            f"num_processes = {processes}: {here} GPUs are wanted, and {of_them}.",
            "Each process trains on a GPU of its own.",
            f"Set num_processes = {possible * machine.num_machines}, or gradient_accumulation_steps"
            " to learn from as many images in a step.",
        )
    return Launch(processes, here, numbers[:here])


def gpus_wanted(machine: Machine, possible: int) -> int:
    """How many GPUs of this machine a run takes, where it may have so many."""
    if machine.num_processes == 1 and machine.multi_gpu:
        return min(len(set(gpu_ids(machine.gpu_ids))) or possible, possible)
    return max(1, machine.num_processes // machine.num_machines)


def launch_asked_for(machine: Machine) -> Launch | None:
    """What the settings ask for here; None where this process trains, alone or as one of several.

    Raises: KitError where the machine has fewer GPUs.
    """
    return None if is_launched() else launch_for(machine, there())


def processes_for(machine: Machine) -> int | None:
    """How many would train; None: as many as a launcher has started already.

    Raises: KitError where the machine has fewer GPUs.
    """
    if is_launched():
        return None
    launch = launch_for(machine, there())
    return launch.processes if launch else 1


def idle_switch(machine: Machine) -> Iterator[str]:
    """That every GPU shall train has no effect where there are not several."""
    if machine.multi_gpu and machine.num_processes == 1 and not is_launched():
        count = len(there())
        if count < 2:
            found = "one GPU is there" if count else "no NVIDIA GPU is there"
            yield f"multi_gpu has no effect: {found}"


def command(launch: Launch, machine: Machine, words: Sequence[str]) -> list[str]:
    """What starts the processes; words: what stands behind `kit`, such as train run.toml."""
    return [
        sys.executable, "-m", "accelerate.commands.launch", *_flags(launch, machine),
        "-m", "kit", *words,
    ]  # fmt: skip


def told(launch: Launch, machine: Machine, words: Sequence[str]) -> str:
    """The same as a person would type it."""
    return shlex.join(["accelerate", "launch", *_flags(launch, machine), "-m", "kit", *words])


def environment(processes: int) -> Mapping[str, str]:
    """The environment of the processes, with tokens of links; accelerate sets theirs beside it."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        **handed_on(),
        ASKED: str(processes),
    }


def _flags(launch: Launch, machine: Machine) -> list[str]:
    words = launch_flags(machine, launch.processes)
    if launch.gpus:
        words += ["--gpu_ids", ",".join(visible(str(number)) for number in launch.gpus)]
    words += ["--num_cpu_threads_per_process", str(_threads(launch, machine))]
    # The training decides both by its settings; unsaid, accelerate would ask its own file.
    return [*words, "--mixed_precision", "no", "--dynamo_backend", "no"]


def _threads(launch: Launch, machine: Machine) -> int:
    """Of each process on the CPU: accelerate would give them one."""
    if machine.num_cpu_threads_per_process:
        return machine.num_cpu_threads_per_process
    cores = os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "").strip()
    most = int(given) if given.isdecimal() and int(given) else cores // launch.here
    return max(1, min(most, cores))


def _there(gpus: Sequence[Gpu]) -> str:
    return "there is 1" if len(gpus) == 1 else f"there are {len(gpus)}"


def _counted(gpus: Sequence[Gpu]) -> str:
    return ", ".join(f"{number} ({gpu.name})" for number, gpu in enumerate(gpus))
