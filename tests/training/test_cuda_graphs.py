"""What stands around a capture, with torch's own captures stood in for: they need a GPU."""

import pytest
import torch

from kit.training import cuda_graphs
from kit.training.cuda_graphs import CudaGraphs


class Told(list):
    """What torch was asked for, in order."""

    def note(self, name, result=None):
        return lambda *args, **_: self.append((name, *args)) or result


class Capture:
    """As torch.cuda.graph: where what is called breaks the capture, its end raises as well."""

    breaks_at_end = True

    def __init__(self, told, graph, pool=None, stream=None, capture_error_mode=""):
        self.told, self.pool, self.stream = told, pool, stream
        assert capture_error_mode == "thread_local"

    def __enter__(self):
        self.told.append(("begin", self.pool, self.stream))
        torch.cuda.set_stream(self.stream)

    def __exit__(self, _kind, error, _trace):
        if error is not None and self.breaks_at_end:
            raise RuntimeError("the capture was invalidated")
        self.told.append(("end", self.pool))
        torch.cuda.set_stream("before")


@pytest.fixture
def told(monkeypatch):
    told, streams = Told(), iter(["own", "another"])

    class Device:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            told.append(("device", self.device))

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(torch.cuda, "graph", lambda *a, **k: Capture(told, *a, **k))
    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: next(streams))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", told.note("pool", "pool 1"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "before")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_stream", told.note("stream"))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", told.note("off"), raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", told.note("release"), raising=False)
    monkeypatch.setattr(cuda_graphs, "_BROKEN", [])
    monkeypatch.setattr(torch, "zeros", told.note("filled"))
    return told


def calls_that_break():
    raise RuntimeError("operation not permitted when stream is capturing")


def test_graphs_of_a_device_share_a_pool_and_a_stream(told):
    recorder = CudaGraphs(torch.device("cuda", 1))
    for _ in range(2):
        _, made = recorder.record(lambda: "losses")
        assert made == "losses"
    assert [each for each in told if each[0] == "begin"] == [("begin", "pool 1", "own")] * 2
    assert told[0] == ("device", torch.device("cuda", 1))
    assert not [each for each in told if each[0] in ("off", "release", "filled")]
    assert told[-1] == ("stream", "before")
    recorder.forget()
    recorder.record(lambda: "losses")
    assert [each[0] for each in told].count("pool") == 2


def test_a_broken_capture_is_put_away_and_what_broke_it_is_told(told):
    recorder = CudaGraphs(torch.device("cuda", 1))
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        recorder.record(calls_that_break)
    names = [each[0] for each in told]
    behind = names[names.index("off") :]
    assert ("off", 1, "pool 1") in told
    assert ("release", 1, "pool 1") in told
    # Random numbers are drawn again once a capture has ended, of a pool of its own.
    assert behind == ["off", "release", "begin", "stream", "filled", "end", "stream", "stream"]
    assert ("end", None) in told
    assert told[-1] == ("stream", "before")
    assert len(cuda_graphs._BROKEN) == 1


def test_a_capture_that_ended_is_let_go_by_torch_itself(told, monkeypatch):
    """As where memory runs out in it: nothing is given back twice."""
    monkeypatch.setattr(Capture, "breaks_at_end", False)

    def nothing_captures(*_):
        raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", nothing_captures, raising=False)
    with pytest.raises(RuntimeError, match="not permitted"):
        CudaGraphs(torch.device("cuda", 1)).record(calls_that_break)
    assert not [each for each in told if each[0] == "release"]
    assert cuda_graphs._BROKEN == []
