"""A batch's loss and backward pass as a graph: captured once per shape, replayed for every batch.

    first use of a shape    call by call: libraries choose their kernels, gradients get their place
    second                  call by call, then captured; the replay must agree with the calls
    third                   both again, with other numbers: a value that was frozen shows here
    from then on            inputs are copied to their places, and the graph is replayed

Clipping and the optimizer stand behind it, call by call: the gradient's norm is read in between, so
that a step that is not finite or explodes never moves a weight, and several processes may stand
there. Over flat buffers they are a handful of kernels.

All graphs share one memory pool. They may, in any order: what passes from one step to the next
(weights, gradients, inputs, losses) lies outside of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from kit.devices import free_memory, ran_out_of_memory, rng_state, set_rng_state
from kit.errors import DeviceError
from kit.optim.flat import flat_of
from kit.training.batches import Batch
from kit.training.soundness import all_finite
from kit.training.step import TrainingStep

HELD = 16  # graphs; more bucket shapes than that take turns
CHECKED = 2  # replays of each graph that are compared
# Relative distances of losses and gradients, between two ways through the same kernels. In half
# precision atomic adds alone make two equal steps differ by 1e-3; what was frozen differs by 1.
AGREES = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 2e-2}

NO_MEMORY = "there is not enough memory for graphs beside the called steps"

Key = tuple[Hashable, ...]


class Recording(Protocol):
    """What was captured."""

    def replay(self) -> None:
        """The same calls once more, on what now lies in the same places."""
        ...


class Recorder(Protocol):
    """Captures calls: CUDA graphs, or what stands in for them."""

    def record(self, calls: Callable[[], Tensor]) -> tuple[Recording, Tensor]:
        """The calls and what they return; they may, but need not, be executed.

        Raises: RuntimeError for calls that cannot be captured.
        """
        ...

    def forget(self) -> None:
        """No recording is alive any more: the next one gets a pool of its own."""
        ...


@dataclass
class _Graph:
    inputs: Batch  # static
    losses_B: Tensor  # static
    recording: Recording
    to_check: int = CHECKED

    def run(self, batch: Batch) -> Tensor:
        self.inputs.take(batch)
        self.recording.replay()
        return self.losses_B.clone()  # the next replay writes there


@dataclass
class GraphEngine:
    """Replays; what cannot be captured, or does not agree, is done call by call, and told why.

    insists: `step_engine = graph`, where falling back is an error and nothing is compared.
    """

    step: TrainingStep
    recorder: Recorder
    insists: bool = False
    fell_back: str = ""  # why
    notices: list[str] = field(default_factory=list)
    _seen: set[Key] = field(default_factory=set)
    _generation: int = 0
    _graphs: OrderedDict[Key, _Graph] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.step.keeps_gradients = True

    @property
    def name(self) -> str:
        """See StepEngine."""
        return "eager" if self.fell_back else "graph"

    @property
    def is_settled(self) -> bool:
        """See StepEngine."""
        return bool(self.fell_back) or any(map(self._trusts, self._graphs.values()))

    def _trusts(self, graph: _Graph | None) -> bool:
        return graph is not None and (self.insists or not graph.to_check)

    def replays(self, batch: Batch, count: float) -> bool:
        """See StepEngine."""
        self._forget_what_moved()
        return not self.fell_back and self._trusts(self._graphs.get((*batch.shapes(), count)))

    def gradient(self, batch: Batch, count: float) -> Tensor:
        """See StepEngine.

        Raises: DeviceError where it insists and a step cannot be captured.
        """
        if self.fell_back:
            return self.step.gradient(batch, count)
        key = (*batch.shapes(), count)
        self._forget_what_moved()
        graph = self._graphs.get(key)
        if graph is not None and self._trusts(graph):
            self._graphs.move_to_end(key)
            return graph.run(batch)
        if key in self._seen or self._graphs:
            return self._beside_graphs(batch, count, key)
        return self._by_turns(batch, count, key)

    def refuse(self, reason: str) -> None:
        """See StepEngine."""
        if not self.fell_back:
            self.fell_back = reason
            self.notices.append(called(reason))
            self._drop()

    def reset(self) -> None:
        """See StepEngine."""
        if self.fell_back == NO_MEMORY:  # there may be more of it now
            self.fell_back = ""
        self._drop()

    def _by_turns(self, batch: Batch, count: float, key: Key) -> Tensor:
        """Called at first, then captured, then compared."""
        if key not in self._seen:
            self._seen.add(key)
            return self.step.gradient(batch, count)
        graph = self._graphs.get(key) or self._captured(batch, count, key)
        if graph is None:
            return self.step.gradient(batch, count)
        self._graphs.move_to_end(key)
        return graph.run(batch) if self.insists else self._compared(graph, batch, count)

    def _beside_graphs(self, batch: Batch, count: float, key: Key) -> Tensor:
        """The same where graphs hold memory that called steps cannot have.

        A batch that fits without them must not be made smaller for their sake: they go.
        """
        device, kept = self.step.accelerator.device, self._gradients()
        state = rng_state(device)
        try:
            return self._by_turns(batch, count, key)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error) or self.fell_back:
                raise
        # Behind the block, where the error no longer holds on to the step's tensors.
        self._put_back(kept)
        set_rng_state(device, state)
        self._fall_back(NO_MEMORY)
        return self.step.gradient(batch, count)

    def _forget_what_moved(self) -> None:
        """Drop every graph where weights, gradients or averages came to lie elsewhere."""
        flat = flat_of(self.step.optimization.optimizer)
        if flat is not None and flat.generation != self._generation:
            self._generation = flat.generation
            self._graphs.clear()
            self.recorder.forget()

    def _drop(self) -> None:
        self._seen.clear()
        self._graphs.clear()
        self.recorder.forget()
        free_memory()

    def take_notices(self) -> list[str]:
        """See StepEngine."""
        told, self.notices = self.notices, []
        return told

    def _captured(self, batch: Batch, count: float, key: Key) -> _Graph | None:
        """A graph of this shape, with gradients and random numbers as they were before; or None."""
        if len(self._graphs) >= HELD:
            self._graphs.popitem(last=False)
            if not self._graphs:
                self.recorder.forget()
        device = self.step.accelerator.device
        inputs, kept = batch.at_rest(device), self._gradients()
        state = rng_state(device)
        free_memory()  # blocks of the steps before it would lie beside the graph's own
        try:
            recording, losses_B = self.recorder.record(lambda: self.step.gradient_of(inputs, count))
        except RuntimeError as error:
            self._fall_back(_reason(error), error)
            return None
        finally:
            self._put_back(kept)
            set_rng_state(device, state)
        self._graphs[key] = _Graph(inputs, losses_B, recording)
        return self._graphs[key]

    def _compared(self, graph: _Graph, batch: Batch, count: float) -> Tensor:
        """Both ways from the same start; what the replay gave counts, if the calls agree."""
        device, before = self.step.accelerator.device, self._gradients()
        state = rng_state(device)
        called_B = self.step.gradient(batch, count)
        called, after = self._gradients(), rng_state(device)
        if not all_finite([called_B, *(gradient for gradient in called if gradient is not None)]):
            return called_B  # fp16's first steps overflow; nothing can be told from that
        self._put_back(before)
        set_rng_state(device, state)
        replayed_B = graph.run(batch)
        set_rng_state(device, after)
        apart = max(
            _distance([replayed_B], [called_B]),
            _distance(_less(self._gradients(), before), _less(called, before)),
        )
        if apart <= self._most():
            graph.to_check -= 1
            return replayed_B
        self._put_back(called)
        self._fall_back(f"the replayed step differs from the called one by {apart:.2g}")
        return called_B

    def _most(self) -> float:
        unet = self.step.text.family.unet
        dtype = next(iter(unet.parameters())).dtype
        scaled = self.step.accelerator.mixed_precision
        return max(AGREES.get(dtype, 2e-2), 1e-3 if scaled == "no" else 2e-2)

    def _fall_back(self, reason: str, error: Exception | None = None) -> None:
        if self.insists:
            raise DeviceError(
                f"step_engine = graph cannot be had: {reason}.",
                "Without it the run trains as well, more slowly.",
                "Set step_engine = auto or eager.",
            ) from error
        self.refuse(reason)

    def _weights(self) -> list[Tensor]:
        groups = self.step.optimization.optimizer.param_groups
        return [weight for group in groups for weight in group["params"]]

    def _gradients(self) -> list[Tensor | None]:
        return [None if w.grad is None else w.grad.clone() for w in self._weights()]

    def _put_back(self, gradients: list[Tensor | None]) -> None:
        """Into the same places: a graph knows them."""
        for weight, gradient in zip(self._weights(), gradients, strict=True):
            if weight.grad is None:
                continue
            if gradient is None:
                weight.grad.zero_()
            else:
                weight.grad.copy_(gradient)


def called(reason: str) -> str:
    """That there is no graph, in words."""
    return f"the steps are made call by call (step_engine = eager): {reason}"


def _less(gradients: list[Tensor | None], before: list[Tensor | None]) -> list[Tensor]:
    """What was added."""
    return [
        now if then is None else now - then
        for now, then in zip(gradients, before, strict=True)
        if now is not None
    ]


def _distance(these: list[Tensor], those: list[Tensor]) -> float:
    """Length of the difference, as a share of the length; infinite where one is not a number."""
    apart = sum(float((a - b).float().square().sum()) for a, b in zip(these, those, strict=True))
    whole = sum(float(b.float().square().sum()) for b in those)
    if apart == 0:
        return 0.0
    share = (apart / whole) ** 0.5 if whole else float("inf")
    return share if share == share else float("inf")


def _reason(error: RuntimeError) -> str:
    if ran_out_of_memory(error):
        return NO_MEMORY
    return f"the step cannot be captured ({str(error).strip().splitlines()[0]})"
