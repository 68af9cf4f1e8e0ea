"""The machine's own test: right here, and seen to fail where something is wrong."""

import math

import pytest
import torch

from kit.cli import main
from kit.demo import selftest
from kit.errors import DeviceError
from kit.training.step import TrainingStep

CPU = torch.device("cpu")


def test_this_machine_computes_the_stored_losses():
    found = selftest.losses(CPU, "no")
    result = selftest.compared(CPU, "no", found, selftest.stored(), "the stored losses", 1e-3)
    assert result.is_right and str(result).startswith("right")
    assert len(set(found)) == selftest.STEPS


def test_a_loss_that_is_off_is_seen(monkeypatch):
    """By a fifth of a percent, as by a kernel that rounds wrongly."""
    plain = TrainingStep.loss

    def off(self, batch):
        return plain(self, batch) * 1.002

    monkeypatch.setattr(TrainingStep, "loss", off)
    found = selftest.losses(CPU, "no", 1)
    result = selftest.compared(CPU, "no", found, selftest.stored()[:1], "", selftest.STORED)
    assert not result.is_right and result.apart == pytest.approx(0.002, rel=0.1)


def fake(monkeypatch, *, half):
    """Every way of computing gives the stored losses, bf16 those that are given."""
    right = selftest.stored()
    monkeypatch.setattr(selftest, "choose_device", lambda: CPU)
    monkeypatch.setattr(
        selftest, "losses", lambda device, precision, steps=20: right if precision == "no" else half
    )


@pytest.mark.parametrize("wrong", [1.5, math.nan])
def test_a_precision_that_computes_something_else_is_named_and_exits_2(monkeypatch, capsys, wrong):
    right = selftest.stored()
    fake(monkeypatch, half=(*right[:-1], right[-1] * wrong))
    assert main(["selftest"]) == 2
    told = capsys.readouterr()
    first, second = told.out.splitlines()
    assert first.startswith("right  CPU") and "fp32" in first
    assert second.startswith("WRONG  CPU") and "bf16" in second
    assert "This machine computes other numbers" in told.err and "bf16" in told.err
    assert "fp32" not in told.err


def test_a_sound_machine_exits_0(monkeypatch, capsys):
    fake(monkeypatch, half=tuple(loss * 1.01 for loss in selftest.stored()))
    assert main(["selftest"]) == 0
    assert capsys.readouterr().out.count("right") == 2


def test_precisions_that_a_device_lacks_are_left_out(monkeypatch):
    fake(monkeypatch, half=selftest.stored())
    assert [result.name.rpartition(" ")[2] for result in selftest.selftest()] == ["fp32", "bf16"]


def test_everything_wrong_is_named_at_once():
    off = selftest.Result("A", "B", 0.5, 0.1)
    with pytest.raises(DeviceError, match="A; A"):
        selftest.require_right([off, off])
    selftest.require_right([selftest.Result("A", "B", 0.05, 0.1)])
