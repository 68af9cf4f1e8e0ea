"""How much a setting drops, limits or measures: the amount, counted, not only a change."""

import pytest
import torch

from kit import catalog
from kit.settings.prompts import Prompt
from kit.training.step import run_step
from tests.effects.stage import BASE

LORA_TYPES = [name for name, row in catalog.LORA_TYPES.items() if "network_dropout" in row.uses]
ALL_RANKS = {"network_dim": 4, "unit": 4}  # DyLoRA draws how many it uses
SIZES = {
    "Kohya DyLoRA": ALL_RANKS,
    "LyCORIS/DyLoRA": ALL_RANKS,
    "LyCORIS/BOFT": {"network_dim": 16},
}
LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CALLS, IMAGES = 80, 50


def woken(ready):
    """One adapter of a linear layer, its layer, and inputs; every number of its change shows."""
    adapter = dict(ready.network.named())[LINEAR]
    layer = ready.network._layers[LINEAR].module
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.normal_(generator=draws)
        if hasattr(adapter, "lora_up"):  # its ranks, one by one, in the first outputs
            adapter.lora_up.weight.copy_(torch.eye(*adapter.lora_up.weight.shape))
    return adapter, layer, torch.randn(IMAGES, 4, layer.in_features, generator=draws)


def shown(adapter, change):
    """The part of a change in which ranks, or else outputs, show one by one."""
    return change[..., : adapter.rank] if hasattr(adapter, "lora_up") else change


@pytest.mark.parametrize("rate", [0.3])
@pytest.mark.parametrize("lora_type", LORA_TYPES)
def test_dropouts_drop_their_share(stage, lora_type, rate):
    for name in ("network_dropout", "rank_dropout", "module_dropout"):
        if name not in catalog.LORA_TYPES[lora_type].uses:
            continue
        size = {"LoRA_type": lora_type, **SIZES.get(lora_type, {"network_dim": 4}), name: rate}
        with stage.prepared(stage.settings({**BASE, **size})) as ready, torch.random.fork_rng([]):
            torch.manual_seed(0)
            adapter, layer, inputs = woken(ready)
            assert dropped(name, adapter, layer, inputs) == pytest.approx(rate, abs=0.05)


@torch.no_grad()
def dropped(name, adapter, layer, inputs):
    """The share of changes, or of single values or ranks of them, that are left out."""
    whole = layer(inputs)
    if name == "module_dropout":
        adapter.multiplier = 0.0
        bare = layer(inputs[:1])
        adapter.multiplier = 1.0
        calls = [layer(inputs[:1]) for _ in range(6 * CALLS)]
        return sum(torch.equal(out, bare) for out in calls) / len(calls)
    outs = [shown(adapter, adapter.change(inputs, whole)) for _ in range(CALLS)]
    return torch.stack([(out == 0).float().mean() for out in outs]).mean().item()


def test_scale_weight_norms_leaves_no_change_longer_than_it_says(stage):
    limit = 0.002
    with stage.prepared(stage.settings({**BASE, "scale_weight_norms": limit})) as ready:
        for step in range(1, 4):
            run_step(ready.training_step, ready.batch_builder.micro_batches(step), count=1)
        norms = [adapter.delta().norm().item() for _, adapter in ready.network.named()]
    assert max(norms) == pytest.approx(limit, rel=1e-3)
    assert sum(norm > 0.99 * limit for norm in norms) > 3


def test_max_grad_norm_is_the_length_that_is_left(stage):
    with stage.prepared(stage.settings({**BASE, "max_grad_norm": 1e-4})) as ready:
        ready.training_step.backward(ready.training_step.loss(ready.batch_builder.batch(0)), 1)
        assert ready.training_step.clip() > 1e-3
        weights = [
            w for group in ready.optimization.optimizer.param_groups for w in group["params"]
        ]
        slopes = [w.grad for w in weights if w.grad is not None]
        assert sum(float(s.square().sum()) for s in slopes) ** 0.5 == pytest.approx(1e-4, rel=0.02)


def test_sdxl_is_told_the_height_and_the_width_of_a_sample(stage, monkeypatch):
    asked = stage.settings({**BASE, "pretrained_model_name_or_path": "@shared/models/sdxl"})
    with stage.prepared(asked) as ready:
        told = []
        predict = type(ready.family).predict

        def noted(family, latents, t, conditioning):
            told.append((tuple(latents.shape[2:]), conditioning.time_ids_B6.tolist()))
            return predict(family, latents, t, conditioning)

        monkeypatch.setattr(type(ready.family), "predict", noted)
        ready.samples.pipeline.generate(Prompt("a cat", steps=2, scale=1.0), size=(128, 64), seed=1)
    factor = 2 ** (len(ready.family.vae.config.block_out_channels) - 1)
    assert told
    for sides, sizes in told:
        assert sides == (64 // factor, 128 // factor)
        assert sizes == [[64, 128, 0, 0, 64, 128]]
