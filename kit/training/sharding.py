"""The frozen U-Net, divided among the processes: each keeps its part of every layer's weights.

torch's fully_shard (FSDP2) gathers a block's weights before it computes, on the way forward and
again on the way back, and lets go of them behind it. So a card holds its part of the U-Net and one
or two blocks at a time. The LoRA stays whole on each, and its gradients travel as ever
(`kit.training.shared_gradient`): the base has none.

Each block of each pass is then something that all processes do together. They make as many passes
in the same order, whatever they pass through: a process without a micro-step of its own takes one
of another's and forgets it, and pictures and validation are made by all of them at once. Who breaks
off in between cannot be waited for: `Ranks.abreast`. Text encoders and VAE stay whole.

Tested over gloo on CPUs; over NCCL not yet run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from kit.adapters.network import Network
from kit.errors import DeviceError
from kit.events import Noticed
from kit.families import Family
from kit.families.resting import taken_up
from kit.settings import Basic, Machine, Memory
from kit.training.ranks import Ranks
from kit.training.waiting import distributed

# What is gathered at once; what lies in none of them belongs to the U-Net as a whole.
BLOCKS = (BasicTransformerBlock, Transformer2DModel, ResnetBlock2D, Downsample2D, Upsample2D)


def divided(
    machine: Machine, family: Family, network: Network, device: torch.device, ranks: Ranks
) -> Iterator[Noticed]:
    """The U-Net with a part on each process; the network, which has seen it whole, on our device.

    Only where that is asked for. Raises: DeviceError.
    """
    if machine.shard_base and ranks.count > 1:
        yield Noticed(shard(family.unet, ranks, device))
        network.to(device)


def shard(unet: nn.Module, ranks: Ranks, device: torch.device) -> str:
    """Leave this process its part of the weights, on its device; returns what is to be told.

    A block at a time is whole on the device. Adapters are attached before: they look at weights.

    Raises: DeviceError where this torch cannot.
    """
    from torch.distributed import device_mesh, fsdp

    if not hasattr(fsdp.FSDPModule, "set_custom_all_gather"):
        raise DeviceError(
            f"shard_base needs torch 2.9 or later; this is {torch.__version__}.",
            "Older ones wait for another process without an end.",
            "Install a newer torch, or turn shard_base off.",
        )
    whole = sum(weight.numel() for weight in unet.parameters())
    mesh = device_mesh.init_device_mesh(device.type, (ranks.count,))
    gather: Any = Gather(ranks)
    place = taken_up(unet, device)
    for block in reversed([m for m in unet.modules() if m is unet or isinstance(m, BLOCKS)]):
        place(block, skip=_is_sharded)
        sharded: Any = fsdp.fully_shard(block, mesh=mesh, reshard_after_forward=True)
        sharded.set_custom_all_gather(gather)
    unet.register_forward_pre_hook(_with_gradient, with_kwargs=True)
    ranks.is_sharded = True
    own = sum(local_numbers(weight) for weight in unet.parameters())
    return (
        f"the U-Net is sharded over {ranks.count} processes: {own / 1e6:.1f} of its "
        f"{whole / 1e6:.1f} million weights lie here"
    )


def local_numbers(weight: Tensor) -> int:
    """How many numbers of a weight this process keeps."""
    part: Tensor = getattr(weight, "_local_tensor", weight)
    return part.numel()


def out_of_memory(basic: Basic, memory: Memory, count: int) -> DeviceError:
    """What ends a process that is short of memory in the middle of what all do together."""
    ways = [] if memory.gradient_checkpointing else ["Set gradient_checkpointing"]
    ways += ["lower train_batch_size (with more gradient_accumulation_steps)"]
    ways += ["lower resolution or network_dim", "or train with more processes"]
    told = ", ".join(ways)
    return DeviceError(
        f"The memory was not enough (train_batch_size = {basic.train_batch_size}), with the base "
        f"model sharded over {count} processes (shard_base).",
        "They go through every layer together, so one of them cannot make its part again in less. "
        "The state of the last whole step is kept.",
        f"{told[0].upper()}{told[1:]}.",
    )


def _is_sharded(weight: Tensor) -> bool:
    return hasattr(weight, "_local_tensor")


def _with_gradient(
    _unet: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Let every block be on the way back, in every process: dropped adapters may leave some out."""
    if torch.is_grad_enabled() and not inputs[0].requires_grad:
        inputs = (inputs[0].detach().requires_grad_(), *inputs[1:])
    return inputs, named


class Gather:
    """How a block's weights are gathered: as torch does, but that nobody waits for who is lost."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room for all parts."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False
    ) -> None:
        """All parts, of all processes, into the output.

        Raises: ProcessLost; Dismissed where the run is over.
        """
        dist = distributed()
        # Its name since torch 2.13, and the one before.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        self._ranks.finish(gather(output_tensor, input_tensor, group=group, async_op=True))
