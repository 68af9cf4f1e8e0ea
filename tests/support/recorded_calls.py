"""A stand-in for CUDA graphs: records a step's calls, and replays them on the same memory.

As on a GPU, what is replayed are the calls below Python and autograd, each on the tensors of the
recording: a number that Python worked out is frozen, a new tensor is not seen, and a call that
hands a number to Python, or makes a tensor of a Python number, cannot be recorded at all.
"""

import weakref
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FORBIDDEN = (
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::nonzero",
    "aten::lift_fresh",
    "aten::_linalg_check_errors",  # reads a number on a GPU
)


class RecordedCalls:
    """Stands in for `kit.training.cuda_graphs.CudaGraphs`."""

    def __init__(self):
        self.recorded = []  # how often each is replayed
        self._alive, self._has_pool = weakref.WeakSet(), False

    def record(self, calls):
        """See `kit.training.graph_engine.Recorder`; here the calls are executed, too."""
        if self._has_pool and not self._alive:
            raise RuntimeError("a pool whose graphs are gone is used again")
        with _Recording() as recording:
            made = calls()
        self._alive.add(recording)
        self._has_pool = True
        self.recorded.append(recording.told)
        return recording, made

    def forget(self):
        """See `kit.training.graph_engine.Recorder`."""
        self._has_pool = False


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls, self.told = [], SimpleNamespace(replays=0)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function._schema.name in FORBIDDEN:
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        made = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, made))
        return made

    def replay(self):
        self.told.replays += 1
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for function, args, kwargs, made in self.calls:
                if is_view(function):
                    continue  # it lies where it lay
                again = function(*args, **kwargs)
                if not function._schema.is_mutable:
                    for place, value in zip(tensors(made), tensors(again), strict=True):
                        if place.data_ptr() != value.data_ptr():
                            place.copy_(value)


def is_view(function):
    """What it returns shares memory with what it was given."""
    returned = function._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returned)


def tensors(made):
    if isinstance(made, torch.Tensor):
        return [made]
    if isinstance(made, (tuple, list)):
        return [tensor for each in made for tensor in tensors(each)]
    return []
