"""The hand-made step gives the loss and the gradients of diffusers' U-Net with plain hooks."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn import functional

from tests.bench.graph_step.step import GraphStep, Options

SCALE = 0.5


def tiny_unet(is_xl):
    """With every kind of layer that the families' U-Nets have."""
    shape = {
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "norm_num_groups": 8,
        "cross_attention_dim": 48,
    }
    if not is_xl:
        return UNet2DConditionModel(
            **shape,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=4,
        )
    return UNet2DConditionModel(
        **shape,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 20,
    )


def tiny_inputs(is_xl):
    made = {
        "latents_BChw": torch.randn(2, 4, 16, 16),
        "noise_BChw": torch.randn(2, 4, 16, 16),
        "t_B": torch.tensor([100, 700]),
        "words_BND": torch.randn(2, 7, 48),
    }
    if is_xl:
        made["added"] = {"text_embeds": torch.randn(2, 20), "time_ids": torch.rand(2, 6) * 100}
    return made


def placed(inputs, device):
    if isinstance(inputs, dict):
        return {name: placed(value, device) for name, value in inputs.items()}
    return inputs.to(device)


def plain(unet, step):
    """Loss, and the gradients of each folded layer's down and up parts, by hooks and autograd."""
    few, given = step.unet, step.inputs
    leaves, hooks = [], []
    for lora, part in zip(few.loras, few.slices, strict=True):
        down, up = (p.clone().requires_grad_() for p in lora.parts(few.master.detach()[part]))
        leaves.append((down, up))
        for layer, d, u in zip(lora.layers, down.chunk(lora.count), up, strict=True):
            hooks.append(layer.register_forward_hook(adding(d, u)))
    kept, added = (table[given["t_B"]][:, None, None, None] for table in step._tables)
    noisy = kept * given["latents_BChw"] + added * given["noise_BChw"]
    more = given.get("added")
    prediction = unet(noisy, given["t_B"], given["words_BND"], added_cond_kwargs=more).sample
    loss = functional.mse_loss(prediction, given["noise_BChw"])
    loss.backward()
    for hook in hooks:
        hook.remove()
    return loss.detach(), [(down.grad, up.grad) for down, up in leaves]


def adding(down, up):
    def hook(layer, inputs, output):
        if layer.weight.dim() == 4:
            hidden = functional.conv2d(inputs[0], down[:, :, None, None])
            return output + functional.conv2d(hidden, up[:, :, None, None]) * SCALE
        return output + functional.linear(functional.linear(inputs[0], down), up) * SCALE

    return hook


def check_gradients(is_xl, options, device="cpu"):
    torch.manual_seed(0)
    unet = tiny_unet(is_xl).requires_grad_(False).eval().to(device)
    inputs = placed(tiny_inputs(is_xl), device)
    step = GraphStep(unet, inputs, rank=4, scale=SCALE, options=options)
    loss, gradients = plain(unet, step)

    step.forward_backward()

    assert step.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    for lora, (down, up) in zip(step.unet.loras, gradients, strict=True):
        assert (lora.down_grad - down).norm() / down.norm() < 1e-4  # seen: 7e-6
        assert (lora.up_grad - up).norm() / up.norm() < 1e-4


@pytest.mark.parametrize("is_xl", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_plain_hooks(is_xl, shared, checkpointing):
    check_gradients(is_xl, Options(triton=False, shared_inputs=shared, checkpointing=checkpointing))


@pytest.mark.gpu
@pytest.mark.parametrize("is_xl", [False, True])
def test_kernels_of_our_own_give_the_same_gradients(is_xl, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # 2.5e-3 apart with it
    check_gradients(is_xl, Options(), "cuda")


def test_a_step_moves_the_weights_and_lowers_the_loss():
    torch.manual_seed(0)
    unet = tiny_unet(False).requires_grad_(False).eval()
    step = GraphStep(unet, tiny_inputs(False), options=Options(triton=False), rate=1e-3)
    losses = []
    for _ in range(12):
        step.run()
        losses.append(step.loss.item())

    assert losses[-1] < losses[0] - 0.01
