"""How many kernels a step asks for: the GPU's own count, or the calls that would launch one."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

# Calls that only look at memory in another way, or ask for it.
_VIEWS = """view _unsafe_view t transpose permute expand slice select unsqueeze squeeze detach alias
    as_strided split split_with_sizes unbind _reshape_alias reshape chunk lift_fresh empty
    empty_like empty_strided new_empty new_empty_strided is_pinned sym_size is_same_size"""
VIEWS = frozenset(_VIEWS.split())


class AtenCalls(TorchDispatchMode):
    """Counts torch's calls by name, views apart; each costs a GPU about one launch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: collections.Counter[str] = collections.Counter()
        self.views = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name.split("::")[1]
        if name in VIEWS:
            self.views += 1
        else:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def aten_calls(step: Callable[[], object]) -> collections.Counter[str]:
    """Torch's calls in one step by name, views left out."""
    with AtenCalls() as counted:
        step()
    return counted.calls


def kernels(step: Callable[[], object]) -> int | None:
    """Kernels that one step launches on the GPU; None without one."""
    if not torch.cuda.is_available():
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        step()
    return sum(event.device_type is torch.autograd.DeviceType.CUDA for event in recorded.events())
