"""A LoRA step of a real-size U-Net with few kernels, and the whole of it as one CUDA graph.

What the product's step shall become was built here by hand first, to see what it gains: no autocast
(the frozen base and what flows through it have one half precision), LoRA masters in one flat
float32 buffer that is cast once a step, gradients that are written straight into a flat buffer, the
LoRA folded into its layer, one product for layers that read the same input, channels last, fused
norms. U-Net only, rank alike everywhere, no dropouts; captions are given.

Shapes: B batch, N places, I inputs, O outputs, R rank, K layers that share an input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kit.diffusion import noise as diffusion

ALIGNED = 64  # numbers; where each layer's part of a flat buffer may begin


@dataclass(frozen=True)
class Options:
    """Each lever, so that it can be measured alone."""

    triton: bool = True
    shared_inputs: bool = True
    channels_last: bool = True
    checkpointing: bool = False


class FoldedLora:
    """The adapters of layers that share their input; their outputs lie side by side.

    Takes no copy of the frozen weights: of several layers, the weights become views of one buffer.
    """

    def __init__(self, layers: Sequence[nn.Module], *, rank: int, scale: float) -> None:
        first: Any = layers[0]
        self.layers, self.rank, self.scale = tuple(layers), rank, scale
        self.count, (self.outputs, self.inputs) = len(layers), first.weight.shape[:2]
        self.weight, self.bias = first.weight.flatten(1), first.bias
        if self.count > 1:
            self.weight = _share(self.layers)
        self.down_shape = (self.count * rank, self.inputs)
        self.up_shape = (self.count, self.outputs, rank)

    @property
    def size(self) -> int:
        """How many numbers learn."""
        return math.prod(self.down_shape) + math.prod(self.up_shape)

    def parts(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Down and up as views of this layer's part of a flat buffer."""
        middle = math.prod(self.down_shape)
        return flat[:middle].view(self.down_shape), flat[middle : self.size].view(self.up_shape)

    def lie_in(self, weights: Tensor, gradients: Tensor) -> None:
        """Read weights from, and write gradients to, these parts of flat buffers."""
        self.down, self.up = self.parts(weights)
        self.down_grad, self.up_grad = self.parts(gradients)
        self.nothing = weights.new_zeros(1)

    def mixed(self, inputs_NI: Tensor) -> Tensor:
        """What the down part makes of the inputs, with the adapter's strength: N, K * R."""
        return torch.addmm(self.nothing, inputs_NI, self.down.t(), beta=0, alpha=self.scale)

    def add_change(self, outputs: Tensor, hidden: Tensor) -> None:
        """Add the change to the layers' outputs, in place."""
        if self.count == 1:
            outputs.addmm_(hidden, self.up[0].t())
            return
        self._by_layer(outputs).baddbmm_(self._by_layer(hidden), self.up.transpose(1, 2))

    def hidden_grad(self, grad: Tensor, hidden: Tensor) -> Tensor:
        """The gradient at the rank; that of the up part is added to its buffer."""
        if self.count == 1:
            self.up_grad[0].addmm_(grad.t(), hidden)
            return torch.addmm(self.nothing, grad, self.up[0], beta=0, alpha=self.scale)
        grad_KNO = self._by_layer(grad)
        self.up_grad.baddbmm_(grad_KNO.transpose(1, 2), self._by_layer(hidden))
        each_KNR = torch.baddbmm(self.nothing, grad_KNO, self.up, beta=0, alpha=self.scale)
        return each_KNR.transpose(0, 1).reshape(-1, self.count * self.rank)

    def _by_layer(self, side_by_side: Tensor) -> Tensor:
        return side_by_side.view(len(side_by_side), self.count, -1).transpose(0, 1)


def _share(layers: Sequence[Any]) -> Tensor:
    assert all(layer.bias is None for layer in layers)
    together = torch.cat([layer.weight.data for layer in layers])
    for layer, piece in zip(layers, together.chunk(len(layers)), strict=True):
        layer.weight.data = piece
    return together


class _Folded(torch.autograd.Function):
    """inputs W' + bias + scale (inputs down') up'. The anchor makes autograd come by."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, _anchor: Tensor, lora: FoldedLora) -> Tensor:
        inputs_NI = inputs.reshape(-1, inputs.shape[-1])
        outputs = functional.linear(inputs_NI, lora.weight, lora.bias)
        hidden = lora.mixed(inputs_NI)
        lora.add_change(outputs, hidden)
        ctx.save_for_backward(inputs_NI, hidden)
        ctx.lora, ctx.shape = lora, inputs.shape
        return outputs.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        inputs_NI, hidden = ctx.saved_tensors
        lora: FoldedLora = ctx.lora
        flat = grad.reshape(-1, grad.shape[-1])
        hidden_grad = lora.hidden_grad(flat, hidden)
        lora.down_grad.addmm_(hidden_grad.t(), inputs_NI)
        if not ctx.needs_input_grad[0]:
            return None, None, None
        inputs_grad = torch.mm(flat, lora.weight).addmm_(hidden_grad, lora.down)
        return inputs_grad.view(ctx.shape), None, None


class FewKernels:
    """A diffusers U-Net of SD 1.x, 2.x or SDXL, run with folded LoRAs on its transformer layers."""

    def __init__(self, unet: Any, *, rank: int, scale: float, options: Options) -> None:
        self.unet, self.options, self.loras = unet, options, []
        self._rank, self._scale = rank, scale
        if options.channels_last:
            unet.to(memory_format=torch.channels_last)
        self.transformers = {
            module: self._adapted(module)
            for module in unet.modules()
            if type(module).__name__ == "Transformer2DModel"
        }
        self._lay_out()
        self.anchor = torch.zeros((), device=self.half.device, requires_grad=True)
        # All time projections as one product. A first convolution's bias rides along: added by
        # the convolution itself it would be a kernel of its own.
        self.resnets = [m for m in unet.modules() if type(m).__name__ == "ResnetBlock2D"]
        self.time_weight = torch.cat([r.time_emb_proj.weight for r in self.resnets])
        self.time_bias = torch.cat([r.time_emb_proj.bias + r.conv1.bias for r in self.resnets])

    def _lora(self, *layers: nn.Module) -> FoldedLora:
        self.loras.append(FoldedLora(layers, rank=self._rank, scale=self._scale))
        return self.loras[-1]

    def _adapted(self, transformer: Any) -> dict[str, Any]:
        return {
            "in": self._lora(transformer.proj_in),
            "blocks": [self._adapted_block(b) for b in transformer.transformer_blocks],
            "out": self._lora(transformer.proj_out),
        }

    def _adapted_block(self, block: Any) -> dict[str, Any]:
        one, two, feed = block.attn1, block.attn2, block.ff.net
        qkv, kv = (one.to_q, one.to_k, one.to_v), (two.to_k, two.to_v)
        together = self.options.shared_inputs
        return {
            "block": block,
            "qkv": [self._lora(*qkv)] if together else [self._lora(layer) for layer in qkv],
            "kv": [self._lora(*kv)] if together else [self._lora(layer) for layer in kv],
            "out1": self._lora(one.to_out[0]),
            "q": self._lora(two.to_q),
            "out2": self._lora(two.to_out[0]),
            "wide": self._lora(feed[0].proj),
            "narrow": self._lora(feed[2]),
        }

    def _lay_out(self) -> None:
        """One buffer each for masters, their half precision and the gradients."""
        like = self.unet.conv_in.weight
        ends = [0]
        for lora in self.loras:
            ends.append(ends[-1] + -(-lora.size // ALIGNED) * ALIGNED)
        self.master = torch.zeros(ends[-1], device=like.device, dtype=torch.float32)
        self.half = torch.zeros_like(self.master, dtype=like.dtype)
        self.half_grad = torch.zeros_like(self.half)
        # In fp32 the gradient is the one that layers write to.
        is_full = like.dtype is torch.float32
        self.grad = self.half_grad if is_full else torch.zeros_like(self.master)
        self.slices = [slice(*pair) for pair in pairwise(ends)]
        for lora, part in zip(self.loras, self.slices, strict=True):
            lora.lie_in(self.half[part], self.half_grad[part])

    def start(self, seed: int) -> None:
        """Small random weights, the up parts too, so that every gradient is there to be seen."""
        generator = torch.Generator().manual_seed(seed)
        for lora, part in zip(self.loras, self.slices, strict=True):
            down, up = lora.parts(self.master.detach()[part])
            down.copy_((torch.rand(down.shape, generator=generator) * 2 - 1) * lora.inputs**-0.5)
            up.copy_(torch.randn(up.shape, generator=generator) * 0.02)

    def __call__(
        self, noisy_BChw: Tensor, t_B: Tensor, words_BND: Tensor, added: dict[str, Tensor] | None
    ) -> Tensor:
        """The U-Net's prediction."""
        unet = self.unet
        self.words = words_BND
        with torch.no_grad():
            self._read_time(t_B, added)
            if self.options.channels_last:
                noisy_BChw = noisy_BChw.contiguous(memory_format=torch.channels_last)
            x = unet.conv_in(noisy_BChw)
        skips = [x]
        for block in unet.down_blocks:
            for number, resnet in enumerate(block.resnets):
                x = self._layer(block, number, resnet, x)
                skips.append(x)
            if block.downsamplers is not None:
                x = block.downsamplers[0].conv(x)
                skips.append(x)
        first, last = unet.mid_block.resnets
        x = self._layer(unet.mid_block, 0, first, x)
        x = self._resnet(last, x)
        for block in unet.up_blocks:
            for number, resnet in enumerate(block.resnets):
                x = self._layer(block, number, resnet, torch.cat([x, skips.pop()], 1))
            if block.upsamplers is not None:
                larger = functional.interpolate(x, scale_factor=2.0, mode="nearest")
                x = block.upsamplers[0].conv(larger)
        return unet.conv_out(self._group_norm(x, unet.conv_norm_out, silu=True))

    def _read_time(self, t_B: Tensor, added: dict[str, Tensor] | None) -> None:
        unet, dtype = self.unet, self.half.dtype
        time = unet.time_embedding(unet.time_proj(t_B).to(dtype))
        if added is not None:
            sizes = unet.add_time_proj(added["time_ids"].flatten()).reshape(len(t_B), -1)
            both = torch.cat([added["text_embeds"], sizes.to(dtype)], -1)
            time = time + unet.add_embedding(both)
        every = functional.linear(functional.silu(time), self.time_weight, self.time_bias)
        sizes_of = [resnet.time_emb_proj.weight.shape[0] for resnet in self.resnets]
        pieces = [piece.contiguous() for piece in every.split(sizes_of, -1)]
        self.times = dict(zip(self.resnets, pieces, strict=True))

    def _layer(self, block: Any, number: int, resnet: Any, x: Tensor) -> Tensor:
        x = self._resnet(resnet, x)
        attentions = getattr(block, "attentions", None)
        return x if attentions is None else self._transformer(attentions[number], x)

    def _again(self, function: Any, *inputs: Any) -> Any:
        """Run it, and with checkpointing run it once more on the way back."""
        if not self.options.checkpointing:
            return function(*inputs)
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)

    def _resnet(self, resnet: Any, x: Tensor) -> Tensor:
        return self._again(self._resnet_once, resnet, x)

    def _resnet_once(self, resnet: Any, x: Tensor) -> Tensor:
        conv = resnet.conv1
        hidden = self._group_norm(x, resnet.norm1, silu=True)
        hidden = functional.conv2d(hidden, conv.weight, None, conv.stride, conv.padding)
        hidden = self._group_norm(hidden, resnet.norm2, silu=True, add_BC=self.times[resnet])
        hidden = resnet.conv2(hidden)
        return (x if resnet.conv_shortcut is None else resnet.conv_shortcut(x)) + hidden

    def _transformer(self, transformer: Any, x: Tensor) -> Tensor:
        parts = self.transformers[transformer]
        batch, channels, height, width = x.shape
        normed = self._group_norm(x, transformer.norm, silu=False)
        places = normed.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        stream, waiting = self._fold(places, parts["in"]), None
        for adapted in parts["blocks"]:
            stream, waiting = self._again(self._block, stream, waiting, adapted)
        assert waiting is not None
        out = self._fold(stream + waiting, parts["out"])
        return x + out.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def _block(
        self, stream: Tensor, waiting: Tensor | None, parts: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """A transformer block; what it adds to the stream last waits for the next norm."""
        block = parts["block"]
        heads = block.attn1.heads
        stream, normed = self._add_norm(stream, waiting, block.norm1)
        q, k, v = self._several(normed, parts["qkv"], 3)
        waiting = self._fold(_attention(q, k, v, heads=heads), parts["out1"])
        stream, normed = self._add_norm(stream, waiting, block.norm2)
        k, v = self._several(self.words, parts["kv"], 2)
        attended = _attention(self._fold(normed, parts["q"]), k, v, heads=heads)
        stream, normed = self._add_norm(stream, self._fold(attended, parts["out2"]), block.norm3)
        wide = self._geglu(self._fold(normed, parts["wide"]))
        return stream, self._fold(wide, parts["narrow"])

    def _fold(self, inputs: Tensor, lora: FoldedLora) -> Tensor:
        made: Tensor = _Folded.apply(inputs, self.anchor, lora)
        return made

    def _several(self, inputs: Tensor, loras: list[FoldedLora], count: int) -> Sequence[Tensor]:
        if len(loras) == count:
            return [self._fold(inputs, lora) for lora in loras]
        return self._fold(inputs, loras[0]).chunk(count, -1)

    def _group_norm(
        self, x: Tensor, norm: Any, *, silu: bool, add_BC: Tensor | None = None
    ) -> Tensor:
        weight, bias, groups, eps = norm.weight, norm.bias, norm.num_groups, norm.eps
        if self.options.triton:
            from tests.bench.graph_step import kernels

            made: Tensor = kernels.GroupNormSilu.apply(x, add_BC, weight, bias, groups, eps, silu)
            return made
        if add_BC is not None:
            x = x + add_BC[:, :, None, None]
        normed = functional.group_norm(x, groups, weight, bias, eps)
        return functional.silu(normed) if silu else normed

    def _add_norm(self, stream: Tensor, waiting: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        if self.options.triton:
            from tests.bench.graph_step import kernels

            made: tuple[Tensor, Tensor] = kernels.AddLayerNorm.apply(
                stream, waiting, norm.weight, norm.bias, norm.eps
            )
            return made
        if waiting is not None:
            stream = stream + waiting
        shape = norm.normalized_shape
        return stream, functional.layer_norm(stream, shape, norm.weight, norm.bias, norm.eps)

    def _geglu(self, wide: Tensor) -> Tensor:
        if self.options.triton:
            from tests.bench.graph_step import kernels

            made: Tensor = kernels.Geglu.apply(wide)
            return made
        hidden, gate = wide.chunk(2, dim=-1)
        return hidden * functional.gelu(gate)


def _attention(q: Tensor, k: Tensor, v: Tensor, *, heads: int) -> Tensor:
    def by_head(x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

    out = functional.scaled_dot_product_attention(by_head(q), by_head(k), by_head(v))
    return out.transpose(1, 2).reshape(q.shape)


class GraphStep:
    """One whole optimizer step; `inputs` are static tensors that a step's numbers are copied into.

    inputs: latents_BChw, noise_BChw, t_B, words_BND, and SDXL's "added" of text_embeds, time_ids.
    """

    def __init__(
        self,
        unet: Any,
        inputs: dict[str, Any],
        *,
        rank: int = 8,
        scale: float = 1.0,
        options: Options | None = None,
        loss_scale: float = 1.0,
        rate: float = 1e-4,
        max_norm: float = 1.0,
    ) -> None:
        self.unet = FewKernels(unet, rank=rank, scale=scale, options=options or Options())
        self.unet.start(3)
        self.inputs, self.max_norm, self.loss_scale = inputs, max_norm, loss_scale
        self.weights = self.unet.master.requires_grad_()
        on_gpu = self.weights.is_cuda
        self.optimizer = torch.optim.AdamW(
            [self.weights],
            lr=torch.tensor(rate, device=self.weights.device) if on_gpu else rate,
            fused=on_gpu or None,
            capturable=on_gpu,
        )
        kept_T = diffusion.alphas_cumprod(zero_terminal_snr=False).to(self.weights.device)
        self._signal_T, self._noise_T = kept_T.sqrt().float(), (1 - kept_T).sqrt().float()

    def forward_backward(self) -> None:
        """Loss and gradient; both stay on the device."""
        unet, given = self.unet, self.inputs
        with torch.no_grad():
            unet.half.copy_(self.weights)
            unet.half_grad.zero_()
            t_B, noise = given["t_B"], given["noise_BChw"]
            kept, added = (table[t_B][:, None, None, None] for table in self._tables)
            noisy = (kept * given["latents_BChw"] + added * noise).to(unet.half.dtype)
        prediction = unet(noisy, t_B, given["words_BND"], given.get("added"))
        loss = functional.mse_loss(prediction.float(), noise)
        # Only what lies on the way to the anchor is visited; the folded layers write the rest.
        (loss * self.loss_scale).backward(inputs=[unet.anchor])
        if unet.grad is not unet.half_grad:
            unet.grad.copy_(unet.half_grad)
        self.loss = loss.detach()

    @torch.no_grad()
    def update(self) -> None:
        """Clip and step. With fp16's scale, a norm that is not finite leaves all as it was."""
        grad = self.unet.grad.div_(self.loss_scale)
        self.norm = torch.linalg.vector_norm(grad)
        optimizer: Any = self.optimizer
        if self.loss_scale != 1:
            optimizer.found_inf = (~torch.isfinite(self.norm)).float()
            optimizer.grad_scale = torch.ones_like(self.norm)
        grad.mul_((self.max_norm / (self.norm + 1e-6)).clamp(max=1.0))
        self.weights.grad = grad
        self.optimizer.step()

    def run(self) -> None:
        """One step, kernel by kernel."""
        self.forward_backward()
        self.update()

    def capture(self) -> torch.cuda.CUDAGraph:
        """The step as a graph; each replay is one step."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what libraries allocate at first use is allocated here
            for _ in range(2):
                self.run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.run()
        torch.cuda.synchronize()
        return graph

    @property
    def _tables(self) -> tuple[Tensor, Tensor]:
        return self._signal_T, self._noise_T
