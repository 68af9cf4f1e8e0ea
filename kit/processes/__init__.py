"""How many processes train one run, and which of them this one is: from the environment alone.

A launcher (accelerate, torchrun) starts the same command several times and tells each by variables
of the environment who it is. One that was asked for several and started one says nothing; then the
run would be trained so many times slower, and by other steps. `require_all` refuses that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from kit.errors import DeviceError

ASKED = "LORA_KIT_PROCESSES"  # how many there are to be, where a launcher of ours started them
COUNT, RANK, LOCAL_RANK, PORT = "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"
COMMANDS = (
    "accelerate launch --multi_gpu --num_processes N -m kit train run.toml",
    "python -m torch.distributed.run --nproc_per_node N -m kit train run.toml",
)
UNABLE = {  # what accelerate's configuration may ask for, in its own variables
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}


@dataclass(frozen=True)
class Processes:
    """This process among those that train one run together; alone it is 0 of 1."""

    count: int = 1
    rank: int = 0  # from 0, over all machines
    local_rank: int = 0  # from 0, on this machine: the number of its GPU

    @property
    def is_first(self) -> bool:
        """It plans, writes and tells; the others compute."""
        return self.rank == 0


def here(environment: Mapping[str, str] | None = None) -> Processes:
    """This process, as the environment tells it.

    Raises: DeviceError where that is no sense.
    """
    known = os.environ if environment is None else environment
    count, rank = _number(known, COUNT, 1), _number(known, RANK, 0)
    if count < 1 or not 0 <= rank < count:
        raise _nonsense(f"{COUNT} = {known.get(COUNT)} and {RANK} = {known.get(RANK)}")
    return Processes(count, rank, _number(known, LOCAL_RANK, rank))


def require_all(planned: int = 0, environment: Mapping[str, str] | None = None) -> None:
    """As many processes as were asked for are there, and asked for is what they can do.

    planned: how many a plan is made for; 0: nobody has planned yet.

    Raises: DeviceError.
    """
    known = os.environ if environment is None else environment
    for name, what in UNABLE.items():
        if known.get(name, "").strip().lower() in ("true", "1", "yes"):
            raise DeviceError(
                f"accelerate's configuration asks for {what}, which LoRA Kit does not train with.",
                "Only the LoRA learns, so its gradients alone travel between the processes; there "
                "is little to divide. A base model too large for a card fits with "
                "base_precision = int8 or nf4, or is divided among the processes by shard_base.",
                f"Choose multi-GPU in accelerate config, or start it with: {COMMANDS[0]}",
            )
    count, asked = here(known).count, planned or _number(known, ASKED, 0)
    is_lone = COUNT not in known and PORT in known
    if not is_lone and asked in (0, count):
        return
    found = f"{asked} processes" if asked > 1 else "Several processes"
    raise DeviceError(
        f"{found} were asked for, and {'only one' if count == 1 else count} started"
        + (f" ({PORT} is set, {COUNT} is not)." if is_lone else "."),
        "accelerate launch starts one, in silence, with --cpu, on one GPU without --multi_gpu, and "
        "from a configuration for CPUs.",
        f"Start it with: {COMMANDS[0]}, or {COMMANDS[1]}, or with kit train, which starts "
        f"num_processes by itself. For one process: take {PORT} out of the environment, or set "
        "num_processes = 1.",
    )


def _number(known: Mapping[str, str], name: str, usual: int) -> int:
    text = known.get(name, "").strip()
    try:
        return int(text) if text else usual
    except ValueError:
        raise _nonsense(f"{name} = {text}") from None


def _nonsense(found: str) -> DeviceError:
    return DeviceError(
        f"The environment says {found}, which is no number of processes.",
        f"A launcher sets {COUNT}, {RANK} and {LOCAL_RANK}: {COMMANDS[0]}",
        f"Start it with that, or take {COUNT} and {RANK} out of the environment.",
    )
