"""The hand-made step against a plain diffusers + PEFT loop, on a CUDA device.

    python -m tests.bench.graph_step sdxl --px 1024 --batch 4 --precision bf16 --checkpointing
    python -m tests.bench.graph_step sd15 --levers --kernels

U-Net only, rank 8, random weights, captions given on both sides, AdamW. One JSON object a line:
median milliseconds per step, and peak GPU memory in MiB. The loop of diffusers waits for its loss
in each step, as diffusers' scripts do; a graph's replay is timed to its end.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from kit.bench.models import empty_part, fill
from kit.devices import DTYPES
from kit.families.loading import config_folder
from tests.bench.graph_step.step import GraphStep, Options

KEYS = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}
FP16_SCALE = 1024.0
LEVERS: dict[str, dict[str, Any]] = {
    "all": {},
    "without Triton's kernels": {"triton": False},
    "layers that share an input apart": {"shared_inputs": False},
    "contiguous, without Triton's kernels": {"channels_last": False, "triton": False},
}
BACK_ENDS = ("CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION")


def random_unet(chosen: argparse.Namespace) -> Any:
    """Of its real size."""
    folder = config_folder(KEYS[chosen.family]) / "unet"
    unet = empty_part(UNet2DConditionModel, folder)
    fill(unet, device=torch.device("cuda"), dtype=DTYPES[chosen.precision])
    return unet


def inputs_for(chosen: argparse.Namespace, unet: Any) -> dict[str, Any]:
    """Noise, and words that are noise, too."""
    generator, batch, side = torch.Generator().manual_seed(1), chosen.batch, chosen.px // 8
    dtype, pooled = DTYPES[chosen.precision], 1280

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).cuda()

    made: dict[str, Any] = {
        "latents_BChw": noise(batch, 4, side, side),
        "noise_BChw": noise(batch, 4, side, side),
        "t_B": torch.linspace(0, 999, batch + 2)[1:-1].long().cuda(),
        "words_BND": noise(batch, 77, unet.config.cross_attention_dim).to(dtype),
    }
    if unet.config.addition_embed_type == "text_time":
        sizes = torch.tensor([[chosen.px, chosen.px, 0, 0, chosen.px, chosen.px]] * batch)
        made["added"] = {
            "text_embeds": noise(batch, pooled).to(dtype),
            "time_ids": sizes.float().cuda(),
        }
    return made


def plain_loop(chosen: argparse.Namespace, unet: Any, given: dict[str, Any]) -> Callable[[], Any]:
    """What diffusers' train_text_to_image_lora scripts do in a step, for the same work."""
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    paths = [
        path
        for path, module in unet.named_modules()
        if (isinstance(module, nn.Linear) and "transformer_blocks" in path)
        or path.endswith(("proj_in", "proj_out"))
    ]
    unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=paths))
    cast_training_params(unet, dtype=torch.float32)
    if chosen.checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()
    weights = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    scaler = torch.amp.GradScaler("cuda", enabled=chosen.precision == "fp16")

    def step() -> float:
        noisy = (given["latents_BChw"] + given["noise_BChw"]).to(unet.dtype)
        with torch.autocast("cuda", DTYPES[chosen.precision]):
            prediction = unet(
                noisy, given["t_B"], given["words_BND"], added_cond_kwargs=given.get("added")
            ).sample
        loss = functional.mse_loss(prediction.float(), given["noise_BChw"])
        shown = loss.item()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return shown

    return step


def milliseconds(step: Callable[[], Any], *, times: int) -> float:
    """The median of a step, with the device waited for."""
    taken = []
    for number in range(times + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if number >= 2:  # the first ones choose kernels
            taken.append(time.perf_counter() - began)
    return round(statistics.median(taken) * 1e3, 2)


def forget() -> None:
    """Count peaks from here."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def theirs(chosen: argparse.Namespace) -> float:
    """Print the plain loop's figures; its milliseconds."""
    forget()
    unet = random_unet(chosen)
    step = plain_loop(chosen, unet, inputs_for(chosen, unet))
    took = milliseconds(step, times=6)
    say(chosen, "diffusers + PEFT", ms=took, peak_mib=peak())
    return took


def ours(chosen: argparse.Namespace, name: str, *, first: str = "", **levers: Any) -> float:
    """Print the hand-made step's figures, alone and as a graph; the graph's milliseconds."""
    forget()
    unet = random_unet(chosen)
    step = GraphStep(
        unet,
        inputs_for(chosen, unet),
        options=Options(checkpointing=chosen.checkpointing, **levers),
        loss_scale=FP16_SCALE if chosen.precision == "fp16" else 1.0,
    )
    order = [first, *(b for b in BACK_ENDS if b != first), "MATH"]
    chooses = [getattr(SDPBackend, back_end) for back_end in order if back_end]
    with sdpa_kernel(chooses, set_priority=True) if first else nullcontext():
        eager = milliseconds(step.run, times=4)
        began = time.perf_counter()
        graph = step.capture()
        captured = round(time.perf_counter() - began, 2)
    took = milliseconds(graph.replay, times=20)
    facts = {"ms": took, "eager_ms": eager, "capture_s": captured, "peak_mib": peak()}
    reserved = torch.cuda.max_memory_reserved() // 2**20
    say(chosen, name, **facts, reserved_mib=reserved, loss=step.loss.item())
    if chosen.kernels and name == "all":
        tell_kernels(chosen, graph)
    graph.reset()
    return took


def tell_kernels(chosen: argparse.Namespace, graph: torch.cuda.CUDAGraph) -> None:
    """Print how many kernels a replay runs, and which take longest."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        graph.replay()
        torch.cuda.synchronize()
    count, busy = Counter[str](), defaultdict[str, float](float)
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            count[event.name[:80]] += 1
            busy[event.name[:80]] += event.device_time / 1e3
    longest = sorted(busy.items(), key=lambda item: -item[1])[:20]
    table = [[name, count[name], round(taken, 2)] for name, taken in longest]
    total = round(sum(busy.values()), 2)
    say(chosen, "kernels", count=sum(count.values()), busy_ms=total, longest=table)


def peak() -> int:
    """MiB held at most since it was forgotten."""
    return torch.cuda.max_memory_allocated() // 2**20


def say(chosen: argparse.Namespace, what: str, **facts: Any) -> None:
    """One line of JSON."""
    print(json.dumps({"what": what, **vars(chosen), **facts}), flush=True)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=KEYS)
    parser.add_argument("--px", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=["bf16", "fp16"], default="bf16")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--levers", action="store_true", help="each lever alone")
    parser.add_argument("--kernels", action="store_true", help="which kernels a replay runs")
    chosen = parser.parse_args()
    before = theirs(chosen)
    took = ours(chosen, "all")
    after = theirs(chosen)
    say(chosen, "ratio", ratio=round(took / statistics.mean([before, after]), 4))
    if chosen.levers:
        for name, levers in list(LEVERS.items())[1:]:
            ours(chosen, name, **levers)
        for back_end in BACK_ENDS:
            ours(chosen, back_end.lower(), first=back_end)


if __name__ == "__main__":
    main()
