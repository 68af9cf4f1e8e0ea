"""DyLoRA: every step trains another rank, so that the file can be cut to any of them afterwards.

Source: Valipour et al. 2022, https://arxiv.org/abs/2210.07558; strength and choice of ranks are
sd-scripts' networks/dylora.py's (behaviour). LyCORIS' own scaling, alpha / number of blocks, makes
files act otherwise than they were trained, so it is not used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kit.adapters.lora import Lora
from kit.adapters.ops import AdaptedLayer


class DyLora(Lora):
    """A LoRA of which each use while training takes the first ranks alone and teaches the last."""

    def __init__(self, layer: AdaptedLayer, *, rank: int, unit: int = 1, **options: Any) -> None:
        """unit: how many ranks learn together; it divides the rank.

        Raises: ValueError where it does not.
        """
        super().__init__(layer, rank=rank, **options)
        if rank % unit:
            raise ValueError(f"unit = {unit} does not divide the rank {rank}")
        self.unit = unit

    @property
    def draws(self) -> bool:
        """The rank is drawn, at each use."""
        return True

    @property
    def decides_on_host(self) -> bool:
        """Shapes are as large as the rank that was drawn."""
        return True

    def forward(self, inputs: Tensor) -> Tensor:
        """Of all ranks when drawing samples; while training, of the first up to a drawn one."""
        if not self.training:
            return super().forward(inputs)
        blocks = self.rank // self.unit
        first = int(torch.randint(blocks, ()).item()) * self.unit
        used = first + self.unit
        up, down = self.lora_up.weight, self.lora_down.weight
        up = torch.cat([up[:, :first].detach(), up[:, first:used]], dim=1)
        down = torch.cat([down[:first].detach(), down[first:used]])
        return self.through(inputs, up, down) * (self.rank / used) ** 0.5
