"""CUDA graphs, as torch has them: calls are recorded on a stream of their own, and replayed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import torch
from torch import Tensor

_BROKEN: list[Any] = []  # graphs whose capture did not end: torch's allocator still points at them


class CudaGraphs:
    """Records graphs whose memory lies in one pool."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: Any = None

    def record(self, calls: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """See `kit.training.graph_engine.Recorder`: nothing is executed here."""
        with torch.cuda.device(self._device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            if self._stream is None:  # torch's own belongs to the device that was captured first
                self._stream = torch.cuda.Stream()
            graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            try:
                with self._capture(graph, self._pool):
                    made = calls()
            except RuntimeError as error:
                torch.cuda.set_stream(before)  # where the end raises, torch leaves its own behind
                self._let_go(graph)
                # The end of a broken capture raises, too, and hides what broke it.
                raise _first_of(error) from error
            finally:
                torch.cuda.set_stream(before)
        return graph, made

    def forget(self) -> None:
        """Of a pool whose graphs are gone nothing more can be had."""
        self._pool = None

    def _capture(self, graph: Any, pool: Any) -> AbstractContextManager[None]:
        """What is called inside goes into the graph.

        Threads that read pictures ahead pin memory meanwhile, which the mode "global" would forbid.
        """
        options: dict[str, Any] = {"stream": self._stream, "capture_error_mode": "thread_local"}
        captured: Any = torch.cuda.graph(graph, pool=pool, **options)
        return captured  # type: ignore[no-any-return]

    def _let_go(self, graph: Any) -> None:
        """Put right what torch leaves where the end of a capture fails.

        Its allocator goes on as if it captured: it frees no blocks at need, and never the pool. Its
        random numbers do until the next capture ends, which refuses every draw outside of one.
        Source: torch's aten/src/ATen/cuda/CUDAGraph.cpp, capture_end.
        """
        inner: Any = torch._C
        with suppress(RuntimeError):  # it says that nothing is captured, where the end has come
            inner._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
            _BROKEN.append(graph)
            inner._cuda_releasePool(torch.cuda.current_device(), self._pool)
        with suppress(RuntimeError), self._capture(torch.cuda.CUDAGraph(), None):
            torch.zeros(1, device=self._device)


def _first_of(error: RuntimeError) -> RuntimeError:
    inner = error.__context__
    return inner if isinstance(inner, RuntimeError) else error
