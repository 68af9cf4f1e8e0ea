"""The models of real size that the GPU tests and the bench build lie whole on their device."""

import pytest
import torch

from kit.bench.models import full_parts


@pytest.mark.parametrize("key", ["sd1", "sd2", "sdxl"])
def test_nothing_of_a_model_stays_behind_on_the_cpu(key):
    # The meta device stands for a GPU, which CI has not: what is not moved is just as far from it.
    device = torch.device("meta")

    parts = full_parts(key, device=device, dtype=torch.float16)

    stayed = [
        f"{part}.{name}"
        for part, module in parts.items()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.device != device
    ]
    assert stayed == []
    buffers = {name for name, _ in parts["text_encoder"].named_buffers()}
    assert any(name.endswith("position_ids") for name in buffers)  # the one that once stayed
