"""CUDA graphs, as torch has them: calls are recorded on a stream of their own, and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CudaGraphs:
    """Records graphs whose memory lies in one pool."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def record(self, calls: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """See `kit.training.graph_engine.Recorder`: nothing is executed here."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # Threads that read pictures ahead pin memory meanwhile, which "global" would forbid.
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            ):
                made = calls()
        except RuntimeError as error:
            # The end of a broken capture raises, too, and hides what broke it.
            raise _first_of(error) from error
        finally:
            torch.cuda.set_stream(before)  # where the end raises, torch leaves its own behind
        return graph, made

    def forget(self) -> None:
        """Of a pool whose graphs are gone nothing more can be had."""
        self._pool = None


def _first_of(error: RuntimeError) -> RuntimeError:
    inner = error.__context__
    return inner if isinstance(inner, RuntimeError) else error
