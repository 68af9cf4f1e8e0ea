"""Sample pictures: the live network draws, from the same seed the same picture.

Nothing here touches the training: random numbers come from the prompt's own generator, and
dropouts rest.

Shapes: B batch (2 with guidance), C latent channels, h w latent height and width.
"""

from __future__ import annotations

import inspect
import io
import pickle
import re
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kit import catalog
from kit.adapters.network import Network, device_of
from kit.dataset.buckets import Size
from kit.devices import free_memory
from kit.diffusion.inpainting import blank_inpaint_cond, unet_input
from kit.diffusion.noise import BETA_END, BETA_START, TIMESTEPS
from kit.errors import MissingPackage, OutputError, in_a_line
from kit.events import Event, Sampled
from kit.families import Conditioning, Family
from kit.families.text import TextConditioner
from kit.randomness import seed_for
from kit.runs.atomic_write import write_atomically
from kit.runs.disk import why_unwritten
from kit.settings.prompts import Prompt
from kit.training.orders import Order
from kit.training.ranks import ALONE, Ranks

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class SamplePipeline:
    """Draws pictures with a family and whatever is attached to it."""

    text: TextConditioner
    sampler: str  # for prompts that name none
    autocast: Autocast

    @property
    def family(self) -> Family:
        """The base model that draws."""
        return self.text.family

    @torch.no_grad()
    def generate(self, prompt: Prompt, *, size: tuple[int, int], seed: int) -> Image.Image:
        """One picture of `size` (width, height); a scale above 1 reads the negative prompt."""
        return self.generate_batch([prompt], size=size, seeds=[seed])[0]

    @torch.no_grad()
    def generate_batch(
        self, prompts: list[Prompt], *, size: tuple[int, int], seeds: list[int]
    ) -> list[Image.Image]:
        """Pictures of one size, steps, scale and sampler, together in one batch."""
        return self.decoded(self.generate_latents(prompts, size=size, seeds=seeds))

    @torch.no_grad()
    def decoded(self, latents_BChw: Tensor) -> list[Image.Image]:
        """The pictures of what `generate_latents` gave."""
        return [_picture(pixels) for pixels in self.family.decode_latents(latents_BChw)]

    @torch.no_grad()
    def generate_latents(
        self, prompts: list[Prompt], *, size: tuple[int, int], seeds: list[int]
    ) -> Tensor:
        """The same before the VAE decodes them: scaled, shape B C h w, on the device."""
        first = prompts[0]
        scheduler = make_scheduler(first.sampler or self.sampler, self.family)
        device = device_of(self.family.unet)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        factor = 2 ** (len(self.family.vae.config.block_out_channels) - 1)
        channels = self.family.vae.config.latent_channels
        shape = (channels, size[1] // factor, size[0] // factor)
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
        conditioning = self._read(prompts, size)
        scheduler.set_timesteps(first.steps, device=device)
        latents_BChw = noise.to(device) * scheduler.init_noise_sigma
        canvas_5hw = blank_inpaint_cond(self.family, size)
        for t in scheduler.timesteps:
            prediction = self._predict(
                scheduler, latents_BChw, t, conditioning, first.scale, canvas_5hw
            )
            latents_BChw = scheduler.step(
                prediction, t, latents_BChw, **_randomness(scheduler, generators)
            ).prev_sample
        return latents_BChw

    def each_latent(self, prompts: Sequence[Prompt], *, rows: int) -> Generator[int, None, Tensor]:
        """Those of prompts with sizes and seeds, `rows` at once; tells how many each batch was.

        Returns them unscaled, shape B C h w, float32 on the CPU.
        """
        found = []
        for first in range(0, len(prompts), rows):
            batch = list(prompts[first : first + rows])
            size = batch[0].width or 0, batch[0].height or 0
            seeds = [prompt.seed or 0 for prompt in batch]
            latents_BChw = self.generate_latents(batch, size=size, seeds=seeds)
            found.append(latents_BChw.float().cpu() / self.family.latent_scale)
            yield len(batch)
        return torch.cat(found)

    def _read(self, prompts: list[Prompt], size: tuple[int, int]) -> Conditioning:
        """That of all negative prompts, then of all prompts; unguided only the latter."""
        texts = [prompt.text for prompt in prompts]
        if prompts[0].scale > 1:
            texts = [prompt.negative for prompt in prompts] + texts
        with self.autocast():
            text_embeds = self.text.prompt_embeds(texts)
        width, height = size
        crops_B6 = torch.tensor([[height, width, 0, 0, height, width]] * len(texts))
        return self.family.condition(text_embeds, crops_B6).to(device_of(self.family.unet))

    def _predict(
        self,
        scheduler: Any,
        latents_BChw: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        scale: float,
        canvas_5hw: Tensor | None,
    ) -> Tensor:
        """The guided prediction (Ho and Salimans 2022, https://arxiv.org/abs/2207.12598, eq. 6)."""
        doubled = torch.cat([latents_BChw] * 2) if scale > 1 else latents_BChw
        scaled = scheduler.scale_model_input(doubled, t)
        inpaint_cond_B5hw = (
            None if canvas_5hw is None else canvas_5hw.expand(len(scaled), -1, -1, -1)
        )
        model_input = unet_input(scaled, inpaint_cond_B5hw)
        with self.autocast():
            prediction = self.family.predict(
                model_input, t.expand(len(model_input)), conditioning
            ).float()
        if scale <= 1:
            return prediction
        without, with_words = prediction.chunk(2)
        return without + scale * (with_words - without)


def make_scheduler(sampler: str, family: Family) -> Any:
    """The sampler of diffusers, told how this family was trained.

    Raises: MissingPackage where it needs a package that is not installed.
    """
    row = catalog.SAMPLERS[sampler]
    options: dict[str, Any] = {
        "num_train_timesteps": TIMESTEPS,
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "scaled_linear",
        "prediction_type": family.predicts.value,
        **row.options,
    }
    kind = catalog.load(row.code)
    if family.zero_terminal_snr:
        options |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        known = inspect.signature(kind.__init__).parameters
        options = {name: value for name, value in options.items() if name in known}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of diffusers 1.0, which is not allowed
            return kind(**options)
    except ImportError as error:  # diffusers' stand-in for a class that needs more than is there
        raise MissingPackage(
            f"The sampler {sampler} cannot be used: {' '.join(str(error).split())}",
            f"There are also {', '.join(name for name in catalog.SAMPLERS if name != sampler)}.",
            "Install the package, or set another sample_sampler.",
        ) from error


def rescales(sampler: str) -> bool:
    """The sampler can draw with zero terminal SNR, from pure noise (Lin et al. 2023)."""
    kind = catalog.load(catalog.SAMPLERS[sampler].code)
    return "rescale_betas_zero_snr" in inspect.signature(kind.__init__).parameters


def samplers_of(prompts: Iterable[Prompt], usual: str) -> list[str]:
    """The samplers that prompts ask for; `usual` for those that name none, and without prompts."""
    return list(dict.fromkeys(prompt.sampler or usual for prompt in prompts)) or [usual]


def seeded(
    texts: Sequence[str], like: Prompt, size: Size, *, address: tuple[int | str, ...]
) -> tuple[Prompt, ...]:
    """Prompts with a seed each, by its address and their number, drawn as `like` says.

    size: that is trained, for a prompt that names none.
    """
    width, height = like.width or size[0] // 8 * 8, like.height or size[1] // 8 * 8
    return tuple(
        replace(
            like,
            text=text,
            width=width,
            height=height,
            seed=seed_for(*address, number) % 2**32,
        )
        for number, text in enumerate(texts)
    )


@dataclass(frozen=True)
class Drawing:
    """One picture to be drawn, of size (width, height)."""

    prompt: Prompt
    size: Size
    seed: int


@dataclass
class SampleWriter:
    """Draws prompts with the live network, and writes the pictures where kohya puts them."""

    pipeline: SamplePipeline
    network: Network
    prompts: tuple[Prompt, ...]  # the run's
    folder: Path
    name: str  # that files begin with
    seed: int  # of the run: seeds the prompts that have none
    size: Size  # trained at, for prompts that name none
    by_epoch: bool = False  # files are named by epoch rather than by step
    typed: list[Prompt] = field(default_factory=list)  # prompts requested along the way
    ranks: Ranks = ALONE  # each draws one at a time

    def write(
        self,
        step: int,
        *,
        epoch: int,
        prompts: Mapping[int, Prompt] | None = None,
        wished: bool = False,
    ) -> Generator[Event, None, None]:
        """Draw every prompt of the run, or these by their number, and write the pictures."""
        numbered = dict(enumerate(self.prompts)) if prompts is None else prompts
        by_epoch = step == 0 or (self.by_epoch and not wished)
        when = f"e{epoch:06d}" if by_epoch else f"{step:06d}"
        with self._ready():
            at_once = 1 if self.ranks.is_sharded else self.ranks.count
            for part in _rounds(list(numbered.items()), at_once):
                drawings = [Drawing(p, self.size_of(p), self.seed_of(p, i)) for i, p in part]
                self.ranks.order(Order.DRAW, step, pickle.dumps(drawings))
                files = self._drawn(drawings)
                for (index, prompt), drawing, data in zip(part, drawings, files, strict=False):
                    path = self._kept(data, self._path(when, index, prompt))
                    yield Sampled(step, index, str(path), prompt.text, drawing.seed, wished)

    def draw_part(self, drawings: bytes) -> None:
        """Draw this process's own of what the first one writes.

        Raises: whatever drawing raises, once the first one knows it.
        """
        with self._ready():
            self._drawn(pickle.loads(drawings))

    @contextmanager
    def _ready(self) -> Iterator[None]:
        unet, vae = self.pipeline.family.unet, self.pipeline.family.vae
        with self.network.eval_mode(), on_device(vae, to=device_of(unet)):
            yield

    def _drawn(self, drawings: Sequence[Drawing]) -> list[bytes]:
        """PNG files of all of them, each drawn by one process."""
        if self.ranks.is_sharded:
            return self._drawn_abreast(drawings)
        own = b""
        try:
            for drawing in drawings[self.ranks.rank : self.ranks.rank + 1]:
                picture = self.pipeline.generate(
                    drawing.prompt, size=drawing.size, seed=drawing.seed
                )
                own = _png(picture)
        except Exception as error:
            self.ranks.collected(b"", in_a_line(error))
            raise
        return self.ranks.collected(own)

    def _drawn_abreast(self, drawings: Sequence[Drawing]) -> list[bytes]:
        """Those, drawn by all processes, whose layers they are; the first one decodes them."""
        files = []
        for drawing in drawings:
            with self.ranks.abreast():
                latents_BChw = self.pipeline.generate_latents(
                    [drawing.prompt], size=drawing.size, seeds=[drawing.seed]
                )
            if self.ranks.is_first:
                files += [_png(picture) for picture in self.pipeline.decoded(latents_BChw)]
        return files

    def _kept(self, data: bytes, path: Path) -> Path:
        """Write the picture, unless an earlier start has drawn the same; returns where it lies."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for other in self._alike(path):
                if other.stat().st_size == len(data) and other.read_bytes() == data:
                    return other
            write_atomically(path, lambda part: part.write_bytes(data))
        except OSError as error:
            raise OutputError(
                f"The sample {path} cannot be written: {why_unwritten(error, path, len(data))}."
            ) from error
        return path

    def _alike(self, path: Path) -> list[Path]:
        """Pictures of the same prompt at the same step or epoch, drawn at whatever time."""
        head, stamp, tail = re.split(r"(?<=_)(\d{14})(?=_\d+\.png$|\.png$)", path.name)
        pattern = re.compile(rf"{re.escape(head)}\d{{{len(stamp)}}}{re.escape(tail)}")
        return sorted(other for other in path.parent.iterdir() if pattern.fullmatch(other.name))

    def number_of(self, prompt: Prompt) -> int:
        """The place of a prompt that was typed while it trains: behind those of the run."""
        if prompt not in self.typed:
            self.typed.append(prompt)
        return len(self.prompts) + self.typed.index(prompt)

    def seed_of(self, prompt: Prompt, index: int) -> int:
        """The prompt's own seed, or one of the run's that stays the same over all steps."""
        if prompt.seed is not None:
            return prompt.seed
        return seed_for(self.seed, "sample", index) % 2**32

    def size_of(self, prompt: Prompt) -> Size:
        """The prompt's size as (width, height); where it says none, the size trained at."""
        width, height = self.size
        return prompt.width or width // 8 * 8, prompt.height or height // 8 * 8

    def _path(self, when: str, index: int, prompt: Prompt) -> Path:
        """As kohya: name, epoch or step, prompt, time, and the seed where the prompt has one."""
        seed = "" if prompt.seed is None else f"_{prompt.seed}"
        stamp = time.strftime("%Y%m%d%H%M%S")
        return self.folder / f"{self.name}_{when}_{index:02d}_{stamp}{seed}.png"


def _rounds(numbered: list[tuple[int, Prompt]], at_once: int) -> Iterator[list[tuple[int, Prompt]]]:
    """As many at once as there are processes."""
    yield from (numbered[i : i + at_once] for i in range(0, len(numbered), at_once))


@contextmanager
def on_device(module: nn.Module, *, to: torch.device) -> Iterator[None]:
    """The module works on another device inside the block, and lies where it lay after it."""
    home = device_of(module)
    module.to(to)
    try:
        yield
    finally:
        module.to(home)
        if home != to:
            free_memory()


def _randomness(scheduler: Any, generators: list[torch.Generator]) -> dict[str, Any]:
    """The generators, for samplers that draw while they step."""
    takes = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": generators} if takes else {}


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _picture(pixels_3HW: Tensor) -> Image.Image:
    bytes_HW3 = ((pixels_3HW / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(bytes_HW3.numpy().astype(np.uint8))
