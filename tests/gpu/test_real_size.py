"""One step of every family at its real size on a CUDA device, against the CPU's in 32 bits."""

import gc
import time

import psutil
import pytest
import torch

from kit.bench.models import full_batch, full_family, full_step
from kit.devices import DTYPES, check_precision, make_accelerator
from kit.errors import DeviceError
from kit.training.step import run_step

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

PX = 256  # the model has its real size, the image need not
# Relative. Rounding alone, on a CPU with SD 1.x at 128 px: losses differ by 7e-5 and 4e-4,
# norms by 6e-4 and 4e-3.
LOSS = {"fp16": 1e-3, "bf16": 5e-3}
NORM = {"fp16": 1e-2, "bf16": 4e-2}
GIB = 2**30
HOST_GIB = {"sd1": 8, "sd2": 9, "sdxl": 18}  # weights in 32 bits, and what a step remembers
DEVICE_GIB = {"sd1": 6, "sd2": 6, "sdxl": 13}
SCALES = 20  # the loss scaler begins at 2**16 and halves until nothing overflows


def one_step(key, device, precision):
    """Loss, gradient norm and the learned weights after one step of text encoders and U-Net."""
    began = time.perf_counter()
    accelerator = make_accelerator(device, precision)
    family = full_family(key, device=device, dtype=DTYPES[precision])
    step, network = full_step(family, accelerator)
    batch = full_batch(family, px=PX, count=1)
    steps = 0
    while steps == 0 or step.optimization.optimizer.step_was_skipped:  # it has changed nothing then
        if steps == SCALES:
            pytest.fail(f"every one of {SCALES} steps overflowed")
        result = run_step(step, [batch], count=1)
        steps += 1
    weights = {name: tensor.cpu() for name, tensor in network.tensors().items()}
    [loss], norm = result.losses, result.norm
    took = time.perf_counter() - began
    print(f"{key} {device} {precision}: loss {loss:.6f} norm {norm:.6f} steps {steps} {took:.1f} s")
    return loss, norm, weights


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def on_the_cpu(request):
    """The family and what its step gives on the CPU; made once for all precisions."""
    key = request.param
    free = psutil.virtual_memory().available / GIB
    if free < HOST_GIB[key]:
        pytest.skip(f"{key} in 32 bits needs {HOST_GIB[key]} GiB of memory, {free:.0f} are free")
    result = one_step(key, torch.device("cpu"), "no")
    gc.collect()
    return key, result


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_step_in_half_precision_has_the_loss_of_the_cpu_in_full(on_the_cpu, precision):
    key, (loss, norm, weights) = on_the_cpu
    device = torch.device("cuda", torch.cuda.current_device())
    try:
        check_precision(device, precision)
    except DeviceError as error:
        pytest.skip(str(error))
    gc.collect()  # the last test's model holds itself by its hooks
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] / GIB
    if free < DEVICE_GIB[key]:
        pytest.skip(f"{key} needs {DEVICE_GIB[key]} GiB of GPU memory, {free:.0f} are free")

    got_loss, got_norm, got_weights = one_step(key, device, precision)

    # All is looked at before the first complaint: a GPU is rarely at hand.
    apart = {"loss": abs(got_loss / loss - 1), "norm": abs(got_norm / norm - 1)}
    print(f"{key} {precision}, apart from the CPU's, relative: {apart}")
    assert got_weights.keys() == weights.keys()
    coarser = [name for name, w in got_weights.items() if w.dtype is not torch.float32]
    broken = [name for name, w in got_weights.items() if not w.isfinite().all()]
    # All has moved but the last layer of SDXL's first text encoder, which nobody reads.
    still = [name for name, w in got_weights.items() if w.any() != weights[name].any()]
    allowed = {"loss": LOSS[precision], "norm": NORM[precision]}
    far = {name: value for name, value in apart.items() if not value <= allowed[name]}
    assert (far, coarser, broken, still) == ({}, [], [], [])
