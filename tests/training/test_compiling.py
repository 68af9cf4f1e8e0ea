"""torch.compile on the U-Net: with adapters and recomputation, and told where it cannot be done."""

import pytest
import torch
from torch import nn

from kit import planning
from kit.errors import DeviceError
from kit.settings import Machine
from kit.training.compiling import compile_unet
from kit.training.preparation import prepare
from kit.training.step import run_step
from tests.support.parts import outcome
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings


class Layer(nn.Module):
    """A layer with an adapter beside it, as the network hooks them."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4).requires_grad_(False)
        self.adapter = nn.Linear(4, 4, bias=False)
        self.inner.register_forward_hook(lambda _, given, out: out + self.adapter(given[0]))

    def forward(self, inputs):
        return self.inner(inputs)


def test_a_compiled_module_computes_and_learns_the_same():
    torch.manual_seed(0)
    layer, inputs = Layer(), torch.randn(3, 4)
    plain = layer(inputs)
    plain.sum().backward()
    expected, layer.adapter.weight.grad = layer.adapter.weight.grad, None
    options = {"dynamo_backend": "aot_eager", "dynamo_use_fullgraph": True}
    compile_unet(layer, Machine(**options, dynamo_use_dynamic=True))
    again = layer(inputs)
    again.sum().backward()
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close(layer.adapter.weight.grad, expected)


def test_nothing_is_compiled_unasked():
    layer = Layer()
    compile_unet(layer, Machine())
    assert layer._compiled_call_impl is None


def test_a_backend_that_is_not_installed_is_refused():
    with pytest.raises(DeviceError, match=r"dynamo_backend = tensorrt[\s\S]*inductor"):
        compile_unet(Layer(), Machine(dynamo_backend="tensorrt"))


def test_what_cannot_be_compiled_in_one_piece_is_told():
    class Breaks(nn.Module):
        def forward(self, inputs):
            return inputs + float(inputs.sum()).hex().count("0") * id(object())

    module = Breaks()
    compile_unet(module, Machine(dynamo_backend="eager", dynamo_use_fullgraph=True))
    with pytest.raises(DeviceError, match=r"cannot compile this U-Net[\s\S]*fullgraph off"):
        module(torch.randn(3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, marks=pytest.mark.long), {"gradient_checkpointing": True}],
    ids=["", "recomputing"],
)
def test_a_compiled_run_learns_the_same(tmp_path, changes):
    model, images = write_tiny(tmp_path / "model", "sd1", thin=True), draw_images(tmp_path / "i")

    def learned(**more):
        settings = toy_settings(model, images, tmp_path / "out", **changes, **more)
        ready, _ = outcome(prepare(planning.plan(settings)))
        result = run_step(ready.training_step, ready.batch_builder.micro_batches(1), count=1)
        ready.close()
        return [*result.losses, result.norm]

    compiled = learned(dynamo_backend="aot_eager")
    assert torch.allclose(torch.tensor(compiled), torch.tensor(learned()), rtol=1e-4)
