"""Train the embedded base: a miniature Stable Diffusion 1.x that really draws, on two CPU cores.

    python -m kit.demo.build_base WORK_DIR [--steps-vae 6000] [--steps-unet 9000] [--seed 0]

Three stages, each checkpointed in WORK_DIR every two minutes and resumed when run again: pictures
and autoencoder, latents, U-Net with text encoder. The result, a diffusers folder in fp16, is
written to `WORK_DIR/base`; copy it to `kit/demo/base`. The shipped base took about 25 and 55
minutes of two cores.

Shapes: B batch, 3 colours, H W picture, h w latent, N tokens.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from kit.demo.scenes import (
    WORDS,
    Scene,
    cored_scenes,
    draw_doodle,
    draw_scene,
    looser_caption,
    plain_scenes,
)

LATENT_SCALE = 0.18215  # as every SD 1.x; the autoencoder is rescaled to deserve it
DRAWINGS_PER_PLAIN_SCENE, DRAWINGS_PER_CORED_SCENE = 48, 24
DOODLES = 14_000
CHECKPOINT_SECONDS = 120


@dataclass(frozen=True)
class Budget:
    """How many batches each stage learns from, and what decides the random draws."""

    vae_steps: int
    unet_steps: int
    seed: int


def build_vae() -> AutoencoderKL:
    """An autoencoder of SD 1.x's layout (factor 8, 4 latent channels) with small widths."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=LATENT_SCALE,
    )


def build_unet() -> UNet2DConditionModel:
    """A U-Net of SD 1.x's layout with small widths, three levels for 8 x 8 latents."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        cross_attention_dim=96,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers of CLIP's text encoder."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_tokenizer(words: tuple[str, ...] = WORDS) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges spell the given words; other text falls to letters."""
    letters = list(_byte_letters())
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
            parts = ["".join(pair), *parts[2:]]
    tokens = letters + [f"{letter}</w>" for letter in letters]
    tokens += [
        token for token in dict.fromkeys("".join(pair) for pair in merges) if token not in tokens
    ]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)


def _byte_letters() -> Iterator[str]:
    """The 256 printable stand-ins for bytes of byte-pair encoding (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    yield from map(chr, printable)
    yield from (chr(256 + i) for i in range(256 - len(printable)))


def draw_pictures(work: Path, seed: int) -> tuple[np.ndarray, list[Scene]]:
    """All training pictures as bytes (B, H, W, 3): the scenes in order, then the doodles."""
    vocabulary = [scene for scene in plain_scenes() for _ in range(DRAWINGS_PER_PLAIN_SCENE)]
    vocabulary += [scene for scene in cored_scenes() for _ in range(DRAWINGS_PER_CORED_SCENE)]
    kept = work / "pictures.npy"
    if not kept.exists():
        random = np.random.default_rng(seed)
        drawn = [np.asarray(draw_scene(scene, random)) for scene in vocabulary]
        drawn += [np.asarray(draw_doodle(random)) for _ in range(DOODLES)]
        _write(kept, lambda path: np.save(path, np.stack(drawn)))
    return np.load(kept), vocabulary


class Stage:
    """One trained stage: its modules, optimizer and moving average, kept in one file."""

    def __init__(
        self, path: Path, modules: dict[str, torch.nn.Module], *, steps: int, peak_rate: float
    ) -> None:
        self.path, self.modules, self.steps, self.peak_rate = path, modules, steps, peak_rate
        self.averaged = {name: copy.deepcopy(module).eval() for name, module in modules.items()}
        weights = [weight for module in modules.values() for weight in module.parameters()]
        self.optimizer = torch.optim.AdamW(
            weights, lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.weights = weights
        self.step = 0
        if path.exists():
            self._resume()

    def train(self, loss_of: Callable[[int], Tensor]) -> None:
        """Take the remaining steps. `loss_of(step)` draws its batch from the step's number."""
        kept, losses = time.monotonic(), []
        while self.step < self.steps:
            loss = loss_of(self.step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak_rate * self._rate(self.step / self.steps)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self._average(min(0.999, self.step / (self.step + 20)))
            losses.append(loss.item())
            if self.step % 200 == 0:
                loss_average = np.mean(losses[-200:])
                print(f"{self.path.stem} step {self.step} loss {loss_average:.4f}", flush=True)
            if time.monotonic() - kept > CHECKPOINT_SECONDS or self.step == self.steps:
                self.keep()
                kept = time.monotonic()

    def keep(self) -> None:
        """Write everything that is needed to go on."""
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "averaged": {name: module.state_dict() for name, module in self.averaged.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        _write(self.path, lambda path: torch.save(state, path))

    def _resume(self) -> None:
        state = torch.load(self.path, weights_only=True)
        for name in self.modules:
            self.modules[name].load_state_dict(state["modules"][name])
            self.averaged[name].load_state_dict(state["averaged"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    @staticmethod
    def _rate(done: float) -> float:
        """Two per cent of warm-up, then a cosine down to a hundredth."""
        return min(1.0, done / 0.02 + 0.01) * (0.505 + 0.495 * math.cos(math.pi * min(1.0, done)))

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        for name, module in self.modules.items():
            torch._foreach_lerp_(
                list(self.averaged[name].parameters()), list(module.parameters()), 1 - decay
            )


def train_vae(work: Path, budget: Budget, pictures: np.ndarray) -> AutoencoderKL:
    """Reconstruct scenes and doodles; returns the averaged, rescaled autoencoder."""
    vae = build_vae()
    stage = Stage(work / "vae.pt", {"vae": vae}, steps=budget.vae_steps, peak_rate=1.2e-3)

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(budget.seed * 1_000_003 + step)
        rows = torch.randint(len(pictures), (16,), generator=generator).numpy()
        pixels_B3HW = _to_pixels(pictures[rows])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pixels_B3HW).latent_dist
            decoded_B3HW = vae.decode(posterior.sample(generator=generator)).sample
        error = decoded_B3HW.float() - pixels_B3HW
        return error.square().mean() + 0.5 * error.abs().mean() + 1e-5 * posterior.kl().mean() / 256

    stage.train(loss_of)
    return _rescaled(stage.averaged["vae"], pictures[:-DOODLES])


@torch.no_grad()
def _rescaled(vae: AutoencoderKL, pictures: np.ndarray) -> AutoencoderKL:
    """Fold a factor into quant_conv so that LATENT_SCALE times the latents has unit variance."""
    rows = np.random.default_rng(0).integers(len(pictures), size=512)
    means = vae.encode(_to_pixels(pictures[rows])).latent_dist.mean
    factor = 1 / (LATENT_SCALE * means.std().item())
    channels = means.shape[1]
    vae.quant_conv.weight[:channels] *= factor
    vae.quant_conv.bias[:channels] *= factor
    vae.quant_conv.bias[channels:] += 2 * math.log(factor)
    vae.post_quant_conv.weight /= factor
    return vae


@torch.no_grad()
def encode_all(work: Path, vae: AutoencoderKL, pictures: np.ndarray) -> Tensor:
    """Mean and standard deviation of every scene's latent, scaled: shape (B, 2, 4, h, w)."""
    kept = work / "latents.pt"
    if not kept.exists():
        rows = []
        shown = pictures[:-DOODLES]
        for start in range(0, len(shown), 128):
            dist = vae.encode(_to_pixels(shown[start : start + 128])).latent_dist
            rows.append(torch.stack([dist.mean, dist.std], dim=1) * LATENT_SCALE)
        _write(kept, lambda path: torch.save(torch.cat(rows), path))
    return torch.load(kept, weights_only=True)


def train_unet(
    work: Path, budget: Budget, latents: Tensor, vocabulary: list[Scene]
) -> tuple[UNet2DConditionModel, CLIPTextModel, CLIPTokenizer]:
    """Predict the noise, as Stable Diffusion does; one caption in ten is empty, for guidance."""
    tokenizer = build_tokenizer()
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    modules = {"unet": unet, "text_encoder": text_encoder}
    stage = Stage(work / "unet.pt", modules, steps=budget.unet_steps, peak_rate=1.2e-3)
    kept_BAR = _alphas_cumprod()
    batch = 64

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(budget.seed * 1_000_003 + step)
        random = np.random.default_rng((budget.seed, step))
        rows = random.integers(len(latents), size=batch)
        mean, std = latents[rows].unbind(1)
        latent_BChw = mean + std * torch.randn(mean.shape, generator=generator)
        captions = [
            "" if random.random() < 0.1 else looser_caption(vocabulary[row], random) for row in rows
        ]
        ids_BN = tokenizer(
            captions, padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids
        noise = torch.randn(mean.shape, generator=generator)
        t_B = torch.randint(1000, (batch,), generator=generator)
        alpha_B = kept_BAR[t_B].view(-1, 1, 1, 1)
        noisy = alpha_B.sqrt() * latent_BChw + (1 - alpha_B).sqrt() * noise
        words = text_encoder(ids_BN).last_hidden_state
        prediction = unet(noisy, t_B, words).sample
        per_sample_B = (prediction - noise).square().mean((1, 2, 3))
        snr_B = (alpha_B / (1 - alpha_B)).flatten()
        return (per_sample_B * snr_B.clamp(max=5) / snr_B).mean()

    stage.train(loss_of)
    return stage.averaged["unet"], stage.averaged["text_encoder"], tokenizer


@torch.no_grad()
def make_letters_audible(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
    """Give tokens that were never read vectors as long as those that were.

    Untrained vectors stay short (0.2 against 0.46), and a word spelled with them, such as a LoRA's
    trigger word, would hardly be heard beside the words of the vocabulary.
    """
    ids = tokenizer(list(WORDS), add_special_tokens=False).input_ids
    read = sorted({token for word in ids for token in word})
    unread = sorted(set(range(len(tokenizer) - 2)) - set(read))
    weight = text_encoder.get_input_embeddings().weight
    weight[unread] *= weight[read].std() / weight[unread].std()


def _alphas_cumprod() -> Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def save_base(
    folder: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    """Write the diffusers folder in fp16."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, module in {"vae": vae, "unet": unet, "text_encoder": text_encoder}.items():
        module.half().save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "tokenizer")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.39.0",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _to_pixels(pictures_BHW3: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures_BHW3).permute(0, 3, 1, 2).float() / 127.5 - 1


def _write(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(f"part-{path.name}")
    write(part)
    part.replace(path)


def main(arguments: list[str]) -> None:
    """Run or resume the whole build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps-vae", type=int, default=6000)
    parser.add_argument("--steps-unet", type=int, default=9000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    asked.work.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    torch.manual_seed(asked.seed)
    budget = Budget(asked.steps_vae, asked.steps_unet, asked.seed)
    pictures, vocabulary = draw_pictures(asked.work, budget.seed)
    vae = train_vae(asked.work, budget, pictures)
    latents = encode_all(asked.work, vae, pictures)
    unet, text_encoder, tokenizer = train_unet(asked.work, budget, latents, vocabulary)
    make_letters_audible(text_encoder, tokenizer)
    save_base(asked.work / "base", vae, unet, text_encoder, tokenizer)
    print(f"written to {asked.work / 'base'}")


if __name__ == "__main__":
    main(sys.argv[1:])
