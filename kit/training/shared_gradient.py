"""The gradient of a step that several processes make together: one buffer, one sum over all.

The buffer holds, in float32, the gradients of all weights; a flag for each, whether it has one (a
weight without one must stay without: it neither decays nor counts); how many processes failed; and
for every micro-step of the step its images' losses and timesteps, each written by the one process
that made it. So one sum over all processes carries everything, and its losses are exact.

    [ gradients | flags | failed | micro-step 0: rows, timesteps, losses | micro-step 1: ... ]

The sum stands before clipping and before fp16's scaler looks: overflow is then everybody's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from kit.devices import ran_out_of_memory
from kit.errors import ProcessLost, in_a_line
from kit.optim.flat import Flat, flat_of
from kit.training.orders import Order
from kit.training.ranks import Ranks

OUT_OF_MEMORY = "out of memory: "  # how a process says it: not the run's end, but in less memory


@dataclass(frozen=True)
class Seen:
    """What a micro-batch came to; the losses lie wherever they were made."""

    micro_step: int
    t_B: Tensor
    loss_B: Tensor


class SharedGradient:
    """Adds the gradients of all processes up, where an optimizer's weights keep theirs."""

    def __init__(self, ranks: Ranks, optimizer: Optimizer, *, gathered: int, rows: int) -> None:
        """gathered: micro-steps of a step at most; rows: images of a batch at most."""
        self._ranks, self._gathered, self._rows = ranks, gathered, rows
        self._each = 1 + 2 * rows  # numbers of a micro-step
        self._window, self._step, self._began = range(0), 0, 0.0
        flat = flat_of(optimizer)
        self._flat: Flat | None = flat
        if flat is not None and flat.buffers.gradients.dtype != torch.float32:
            self._flat = None
        groups = optimizer.param_groups
        self._weights: list[Parameter] = [w for group in groups for w in group["params"]]
        tail = len(self._weights) + 1 + gathered * (1 + 2 * rows)
        device = self._weights[0].device
        if self._flat is not None:
            size = self._flat.buffers.gradients.numel()
            self._whole = torch.zeros(size + tail, device=device)
            self._flat.gradients_lie_in(self._whole[:size])
            places = {place.weight: place.gradient for place in self._flat.buffers.places}
            self._views = [places[weight] for weight in self._weights]
        else:
            sizes = [weight.numel() for weight in self._weights]
            size = sum(sizes)
            self._whole = torch.zeros(size + tail, device=device)
            parts = self._whole[:size].split(sizes)
            self._views = [p.view(w.shape) for p, w in zip(parts, self._weights, strict=True)]
        self._tail = self._whole[size:]

    def begin(self, step: int, micro_steps: range) -> None:
        """A step of these micro-steps, of all processes; process 0 has the others begin, too."""
        self._step, self._window, self._began = step, micro_steps, time.monotonic()
        self._ranks.doing(f"step {step}")
        if self._ranks.is_first:
            self._ranks.order(Order.STEP, step)

    def add_up(self, seen: Sequence[Seen]) -> list[Seen]:
        """The sum of all gradients; returns what all micro-batches of the step came to, in order.

        Raises: ProcessLost; MemoryError where another process had not enough memory.
        """
        has = [weight.grad is not None for weight in self._weights]
        self._bring_in(has)
        count = len(self._weights)
        told = self._summed([*map(float, has), 0.0, *self._slots(seen)], seen)
        self._bring_back([flag > 0 for flag in told[:count]])
        if told[count]:
            self._ended("")
        return self._read(told[count + 1 :])

    def fail(self, error: BaseException) -> None:
        """Our part cannot be made: the others hear of it, and why, instead of waiting.

        Where the base is sharded they wait elsewhere, and hear it by our end.

        Raises: ProcessLost where it is another one's failure, too, and a worse one.
        """
        if self._ranks.is_sharded:
            return
        told = OUT_OF_MEMORY if ran_out_of_memory(error) else ""
        count = len(self._weights)
        self._summed([0.0] * count + [1.0] + [0.0] * (len(self._tail) - count - 1))
        self._ended(f"{told}{in_a_line(error)}")

    def moves(self) -> None:
        """Process 0 has seen that the gradient is sound: all of them move the weights."""
        if self._ranks.is_first:
            self._ranks.order(Order.UPDATE, self._step)

    def _bring_in(self, has: Sequence[bool]) -> None:
        """Every gradient into the buffer, zero where there is none."""
        for weight, view, is_there in zip(self._weights, self._views, has, strict=True):
            if not is_there:
                view.zero_()
            elif weight.grad is not view:
                assert weight.grad is not None
                view.copy_(weight.grad)

    def _bring_back(self, has: Sequence[bool]) -> None:
        """The sums to the weights, in the places that a recorded step knows."""
        for weight, view, is_there in zip(self._weights, self._views, has, strict=True):
            if not is_there or weight.grad is view:
                continue
            if self._flat is not None:
                weight.grad = view
            elif weight.grad is not None:
                weight.grad.copy_(view)
            else:
                weight.grad = view.to(weight.dtype, copy=True)

    def _summed(self, tail: list[float], seen: Sequence[Seen] = ()) -> list[float]:
        self._tail.copy_(torch.tensor(tail))
        for one in seen:  # from device to device: nothing is waited for
            start = len(self._weights) + 2 + self._slot(one.micro_step) + self._rows
            self._tail[start : start + len(one.t_B)].copy_(one.loss_B)
        own = time.monotonic() - self._began
        self._ranks.add_up(self._whole)
        self._ranks.took(own)  # behind it: in the first step nobody knows yet what is usual
        told: list[float] = self._tail.tolist()
        return told

    def _slots(self, seen: Sequence[Seen]) -> list[float]:
        """Rows and timesteps of our own micro-steps; nothing in those of the others."""
        slots = [0.0] * (self._gathered * self._each)
        for one in seen:
            start, ts = self._slot(one.micro_step), one.t_B.tolist()
            slots[start : start + 1 + len(ts)] = [float(len(ts)), *map(float, ts)]
        return slots

    def _slot(self, micro_step: int) -> int:
        """Where its numbers begin behind the flags."""
        return (micro_step - self._window.start) * self._each

    def _read(self, slots: Sequence[float]) -> list[Seen]:
        found = []
        for micro_step in self._window:
            start = self._slot(micro_step)
            count, row = int(slots[start]), slots[start + 1 : start + self._each]
            ts, losses = row[:count], row[self._rows : self._rows + count]
            found.append(Seen(micro_step, torch.tensor([int(t) for t in ts]), torch.tensor(losses)))
        return found

    def _ended(self, own: str) -> None:
        """Some process failed: all say why. Raises the worst of what the others say."""
        told = self._ranks.texts(own)
        others = {rank: text for rank, text in enumerate(told) if text and rank != self._ranks.rank}
        for rank, text in others.items():
            if not text.startswith(OUT_OF_MEMORY):
                raise ProcessLost(
                    f"Process {rank} of {self._ranks.count} failed at step {self._step}: {text}",
                    "The processes train together, so all of them have ended. The state of the "
                    "last whole step is kept.",
                    "Put right what is said, and start the same command again: it goes on.",
                )
        if others and not own:
            rank, text = next(iter(others.items()))
            raise MemoryError(f"process {rank}: {text.removeprefix(OUT_OF_MEMORY)}")
