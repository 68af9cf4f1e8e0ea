"""bitsandbytes' optimizers over buffers: one call for a group's weights, and one wait for all.

By themselves they call a kernel for each weight, and wait for the GPU after each: SDXL has 1,444.
An 8-bit state keeps a byte for each number and the largest value of each block of 256, counted from
a weight's first number. So weights begin at multiples of a block, and the largest values of many
lie side by side, too. Weights too small for 8 bits (min_8bit_size) keep 32 and lie by themselves.
Every bit is what bitsandbytes' own step makes of single weights, and so is what a state says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from kit.optim.flat import Flat

LARGEST = ("absmax1", "absmax2")  # one number for each block
TABLES = {"state1": "qmap1", "state2": "qmap2"}  # what the bytes of a state stand for


class OneWait(Optimizer):
    """Mixed in before an optimizer of bitsandbytes: its step, but for a wait after each weight."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every weight that has a gradient."""
        own: Any = self
        if not own.initialized:
            own.to_gpu()
            own.initialized = True
        device = torch.device("cpu")
        for number, group in enumerate(self.param_groups):
            for place, weight in enumerate(group["params"]):
                if weight.grad is None:
                    continue
                if not self.state[weight]:
                    own.init_state(group, weight, number, place)
                own.update_step(group, weight, number, place)
                device = weight.device
        if device.type != "cpu":
            getattr(torch, device.type).synchronize(device)
        return None


class FlatBits(Flat):
    """An optimizer of bitsandbytes whose weights lie flat, the small ones of a group together."""

    def lay_flat(
        self, elementwise: frozenset[str], groups: Sequence[Sequence[Parameter]] = ()
    ) -> None:
        """See Flat."""
        own: Any = self  # bitsandbytes is untyped
        self.least: float = own.args.min_8bit_size
        block = self._block()
        self.aligned = max(self.aligned, block)
        given = groups or [group["params"] for group in self.param_groups]
        super().lay_flat(elementwise, [sorted(weights, key=self._is_small) for weights in given])
        self.beside |= dict.fromkeys(LARGEST, block)

    def get_config(self, number: int, place: int, group: dict[str, Any]) -> dict[str, Any]:
        """What bitsandbytes asks: a run is small where its weights are, however long it is."""
        inner: Any = super()
        config: dict[str, Any] = inner.get_config(number, place, group)
        inside = {run.weight: run.places[0].weight for run in self.runs}
        weight = inside.get(group["params"][place])
        is_small = weight is not None and self._is_small(weight)
        return {**config, "min_8bit_size": math.inf if is_small else 0}

    def _block(self) -> int:
        """How many numbers share a largest value in this version; 1: 32 bits have none."""
        probe, own = Parameter(torch.zeros(2**16)), cast(Any, self)
        self.runs = []
        own.init_state(self.param_groups[0], probe, 0, 0)
        largest = self.state.pop(probe).get(LARGEST[0])
        return 1 if largest is None else probe.numel() // len(largest)

    def _is_small(self, weight: Parameter) -> bool:
        return weight.numel() < self.least

    def _signature(self, weight: Parameter) -> object:
        return self._is_small(weight), super()._signature(weight)

    def _nothing(self, state: dict[str, Any], name: str) -> int:
        """The byte that stands for 0, for what lies between two weights: it is no largest value."""
        table = state.get(TABLES.get(name, ""))
        return 0 if table is None else int(table.abs().argmin())


def bits_kind(kind: type[Optimizer]) -> type[Flat]:
    """As `flat_kind`, of one of bitsandbytes' classes that move each number by itself."""
    bases = (FlatBits, OneWait, kind)
    return cast(type[Flat], type(kind.__name__, bases, {"__module__": kind.__module__}))
