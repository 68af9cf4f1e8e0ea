"""Weights, gradients and averages of an optimizer, each in one buffer: one kernel instead of many.

What learns stays a parameter of its shape, and its gradient and its averages stay what they were
for everybody who looks: they are views. Only the optimizer's own step sees the buffers, which it
moves as if they were a few long weights: runs of weights that lie side by side and have the same
count of steps. That is for optimizers that move each number by itself (`elementwise` of the
catalog's rows); the numbers are those of single weights, to the last bit. Others step over single
weights, which lie flat all the same.

A weight without a gradient is in no run: it neither decays nor counts, as ever. Gradients are
zeroed in place, so addresses stay; `generation` says when runs or averages came to lie elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

ALIGNED = 64  # numbers: where a weight begins, products of matrices are quick in every precision
LONGEST = 2**30  # numbers of a run: some kernels count in 32 bits
ROW = 4096  # numbers: norms are taken row by row first, which rounds less than one long sum


@dataclass(frozen=True)
class Place:
    """Where a weight lies in the buffers."""

    weight: Parameter
    group: int
    start: int
    stop: int
    gradient: Tensor  # the buffer's view


class Buffers:
    """All weights of an optimizer as views of one buffer, and a second one for their gradients."""

    def __init__(self, groups: Sequence[Sequence[Parameter]], aligned: int = ALIGNED) -> None:
        first, end = groups[0][0], 0
        bounds: list[tuple[Parameter, int, int]] = []
        for number, weights in enumerate(groups):
            for weight in weights:
                bounds.append((weight, number, end))
                end = _raised(end + weight.numel(), aligned)
        size = _raised(end, ROW)
        self.weights = torch.zeros(size, dtype=first.dtype, device=first.device)
        self.gradients = torch.zeros_like(self.weights)
        self.places = [self._moved_in(*bound) for bound in bounds]

    def _moved_in(self, weight: Parameter, group: int, start: int) -> Place:
        stop = start + weight.numel()
        view = self.weights[start:stop].view(weight.shape)
        view.copy_(weight.detach())
        weight.data, weight.grad = view, None  # an earlier optimizer's gradient means nothing here
        return Place(weight, group, start, stop, self.gradients[start:stop].view(weight.shape))

    def gradients_lie_in(self, whole: Tensor) -> None:
        """Let the gradients, which are still zero, lie in this; as many numbers."""
        self.gradients = whole
        self.places = [
            replace(p, gradient=whole[p.start : p.stop].view(p.weight.shape)) for p in self.places
        ]

    @property
    def hold_weights(self) -> bool:
        """The weights are still views of this buffer."""
        first = self.places[0]
        return first.weight.data_ptr() == self.weights[first.start :].data_ptr()

    @property
    def norm(self) -> Tensor:
        """The length of the gradient, a tensor on the device."""
        rows = torch.linalg.vector_norm(self.gradients.view(-1, ROW), dim=1, dtype=torch.float32)
        return torch.linalg.vector_norm(rows)


@dataclass
class Run:
    """Weights side by side, as the optimizer's step sees them: one long weight."""

    group: int
    signature: object
    places: list[Place]
    weight: Parameter = field(init=False)
    shown: dict[str, Any] = field(default_factory=dict)  # the state that its weights' views are of

    @property
    def inside(self) -> slice:
        """Its part of the buffers."""
        return slice(self.places[0].start, self.places[-1].stop)

    def takes(self, place: Place, signature: object) -> bool:
        """The weight behind it belongs to it."""
        length = place.stop - self.places[0].start
        alike = (self.group, self.signature) == (place.group, signature)
        return alike and length <= LONGEST

    def lie_in(self, buffers: Buffers) -> None:
        """Take shape, once all of its places are known."""
        self.weight = Parameter(buffers.weights[self.inside])
        self.weight.grad = buffers.gradients[self.inside]

    def part(self, whole: Tensor, place: Place, shared: int = 1) -> Tensor:
        """A weight's own of what lies beside the run; shared: by so many numbers, 1: by none."""
        start = self.places[0].start
        inside = slice((place.start - start) // shared, -(-(place.stop - start) // shared))
        return whole[inside] if shared > 1 else whole[inside].view(place.weight.shape)


class Flat(Optimizer):
    """Mixed in before an optimizer's class, whose step then moves runs instead of single weights.

    `param_groups`, `state` and `state_dict` go by single weights.
    """

    # What of its state lies beside the weights, and how many numbers share a value of it; the rest
    # is a run's. Where there is nothing, it steps over single weights.
    beside: dict[str, int]
    aligned = ALIGNED
    buffers: Buffers
    runs: list[Run]
    generation = 0

    def lay_flat(
        self, elementwise: frozenset[str], groups: Sequence[Sequence[Parameter]] = ()
    ) -> None:
        """Let the weights, which are alike in precision and device, move into buffers.

        elementwise: see there; nothing where the optimizer looks at whole weights. groups: the
        weights of each group in the order in which they are to lie, if that is not its own.
        """
        self.beside = dict.fromkeys(elementwise, 1)
        weights = groups or [group["params"] for group in self.param_groups]
        self.buffers = Buffers(weights, self.aligned)
        self.runs = []
        self._run_state: defaultdict[Tensor, Any] = defaultdict(dict)
        self._live: list[bool] | None = None  # None: what the runs are made from has changed

    def gradients_lie_in(self, whole: Tensor) -> None:
        """Before the first step: gradients lie in a part of somebody's buffer; as many numbers."""
        self.buffers.gradients_lie_in(whole)
        self._live = None

    def collect(self) -> None:
        """See to it that every gradient lies in the buffer, and who has one."""
        live = []
        for place in self.buffers.places:
            grad = place.weight.grad
            if grad is not None and grad is not place.gradient:
                place.gradient.copy_(grad)
                place.weight.grad = place.gradient
            live.append(grad is not None)
        if live != self._live or any(run.shown and not self._holds(run) for run in self.runs):
            self._form_runs(live)

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """Inside the block it shows one weight, all of them, and one gradient: to a loss scaler."""
        self.collect()
        weights = [group["params"] for group in self.param_groups]
        whole = Parameter(self.buffers.weights)
        whole.grad = self.buffers.gradients
        for number, group in enumerate(self.param_groups):
            group["params"] = [] if number else [whole]
        try:
            yield
        finally:
            for group, own in zip(self.param_groups, weights, strict=True):
                group["params"] = own

    def clip(self, longest: float) -> Tensor:
        """Shorten the whole gradient to this length; returns its length before.

        As torch.nn.utils.clip_grad_norm_, which adds up the norms of single weights.
        """
        self.collect()
        norm = self.buffers.norm
        self.buffers.gradients.mul_((longest / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def step(self, closure: Any = None) -> Any:
        """Move every weight that has a gradient."""
        self.collect()
        if not self.beside:
            return super().step(closure)
        weights, state = [group["params"] for group in self.param_groups], self.state
        for number, group in enumerate(self.param_groups):
            group["params"] = [run.weight for run in self.runs if run.group == number]
        self.state = self._run_state
        try:
            done = super().step(closure)
        finally:
            self.state = state
            for group, own in zip(self.param_groups, weights, strict=True):
                group["params"] = own
        for run in self.runs:
            self._show(run)
        return done

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient, which stays where it is; what lies elsewhere goes."""
        self.buffers.gradients.zero_()
        for place in self.buffers.places:
            if place.weight.grad is not place.gradient:
                place.weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """By single weights, each with tensors of its own."""
        found = super().state_dict()
        if not self.beside:
            return found
        return {**found, "state": {n: self._own("", each) for n, each in found["state"].items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state by single weights."""
        super().load_state_dict(state_dict)
        self._live = None

    def _own(self, name: str, value: Any) -> Any:
        """A copy, but of tables."""
        if isinstance(value, dict):
            return {inner: self._own(inner, each) for inner, each in value.items()}
        is_own = isinstance(value, Tensor) and (name in self.beside or not _is_table(value))
        return value.clone() if is_own else value

    def _holds(self, run: Run) -> bool:
        """The state of single weights is still what was shown."""
        return run.places[0].weight in self.state

    def _form_runs(self, live: list[bool]) -> None:
        self.runs, previous = [], None
        for place, has_gradient in zip(self.buffers.places, live, strict=True):
            if not has_gradient:
                place.gradient.zero_()  # it counts in no norm
            if not has_gradient or not self.beside:
                previous = None
                continue
            signature = self._signature(place.weight)
            if previous is None or not previous.takes(place, signature):
                previous = Run(place.group, signature, [])
                self.runs.append(previous)
            previous.places.append(place)
        self._run_state = defaultdict(dict)
        for run in self.runs:
            run.lie_in(self.buffers)
            if merged := self._merged(run):
                self._run_state[run.weight] = merged
            self._show(run)
        self._live = live
        self.generation += 1

    def _signature(self, weight: Parameter) -> object:
        """What must be the same within a run."""
        state = self.state.get(weight) or {}
        alike = {
            name: _number(value)
            for name, value in state.items()
            if name not in self.beside and not _is_table(value)
        }
        return alike, {name: state[name].dtype for name in state.keys() & self.beside.keys()}

    def _merged(self, run: Run) -> dict[str, Any]:
        """The state of a run from that of its weights."""
        first = self.state.get(run.places[0].weight) or {}
        merged: dict[str, Any] = {name: self._own(name, value) for name, value in first.items()}
        for name, shared in self.beside.items():
            if name in first:
                count = -(-len(run.weight) // shared)
                merged[name] = first[name].new_full((count,), self._nothing(first, name))
                for place in run.places:
                    own = self.state[place.weight][name]
                    run.part(merged[name], place, shared).copy_(own)
        return merged

    def _nothing(self, _state: dict[str, Any], _name: str) -> int:
        """What lies between two weights in a part of the state."""
        return 0

    def _show(self, run: Run) -> None:
        """Let the state of single weights be views of the run's, where it is another than it was.

        A count of steps may be: a number of Python's.
        """
        state = self._run_state.get(run.weight) or {}
        changed = {name: v for name, v in state.items() if run.shown.get(name) is not v}
        if not changed:
            return
        for place in run.places:
            self.state.setdefault(place.weight, {}).update(
                (name, run.part(value, place, self.beside[name]) if name in self.beside else value)
                for name, value in changed.items()
            )
        run.shown = dict(state)


def flat_kind(kind: type[Optimizer]) -> type[Flat]:
    """The class whose step moves buffers; it is called as the one that it extends."""
    return cast(type[Flat], type(kind.__name__, (Flat, kind), {"__module__": kind.__module__}))


def flat_of(optimizer: Optimizer) -> Flat | None:
    """The optimizer itself, in accelerate's wrapper or not, where its weights lie flat."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return inner if isinstance(inner, Flat) else None


def can_lie_flat(groups: Sequence[Sequence[Parameter]]) -> bool:
    """All weights are alike, so that one buffer holds them."""
    return len({(w.dtype, w.device) for weights in groups for w in weights}) == 1


def _raised(number: int, step: int) -> int:
    return -(-number // step) * step


def _is_table(value: Any) -> bool:
    """Numbers that are the same for every weight, and are never written to."""
    return isinstance(value, Tensor) and value.numel() > 1


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
