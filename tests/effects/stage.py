"""The stage on which effects are seen: tiny models, pictures, masks, runs prepared on demand."""

from __future__ import annotations

import copy
import gc
import hashlib
import itertools
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kit import planning
from kit.demo.scenes import draw_subject
from kit.families import base_model
from kit.lorafile.tensors import write_lora
from kit.runs.record import RunRecord, write_record
from kit.settings import Settings
from kit.training.preparation import Resources, prepare
from tests.support.parts import outcome
from tests.support.tiny import build_vae, write_tiny

TAGS = "a zib ball, red, (round:1.4), {big|small}\nanother line, of tags, here"
SIZES = [(128, 64), (64, 64), (80, 64)]  # the last one is cut, or scaled
DATASET = """
[[datasets]]
  [[datasets.subsets]]
  image_dir = "images/2_zib ball"
  [[datasets.subsets]]
  image_dir = "flat"
  num_repeats = 2
"""
UNSET = object()
STEP_OF_NAME = re.compile(r"-(?:step)?(\d{6,8})(?=[-./]|$)")  # of LoRA files and state folders
BASE: dict[str, Any] = {
    "pretrained_model_name_or_path": "@shared/models/sd1",
    "train_data_dir": "@shared/images",
    "output_dir": "@fresh/out",
    "output_name": "toy",
    "resolution": "128,64",
    "mixed_precision": "no",
    "save_precision": "float",
    "optimizer_type": "AdamW",
    "network_dim": 2,
    "learning_rate": 1e-2,
    "unet_lr": None,
    "text_encoder_lr": None,
    "epoch": 2,
    "save_every_n_epochs": 0,
    "seed": 5,
}


@dataclass(frozen=True)
class Row:
    """One setting's effect; see the package's own words."""

    shows: Callable[[Stage, Settings], object]
    other: Any
    given: Mapping[str, Any] = field(default_factory=dict)
    plain: Any = UNSET
    model: str = "sd1"


class Stage:
    """Settings to what is seen of them; what was seen once is remembered."""

    def __init__(self, folder: Path) -> None:
        self.shared, self._fresh = build_fixtures(folder / "shared"), folder / "fresh"
        self._numbers, self._families, self._seen = itertools.count(), {}, {}
        self._amounts: dict[str, list[float]] = {}
        self._read = base_model.load_family
        gc.freeze()  # collecting what stays anyway would take longer than the looking

    def sides(self, name: str, row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
        """The plain and the other side as changes of the base, with the marks of places."""
        shared = {"pretrained_model_name_or_path": f"@shared/models/{row.model}"}
        plain = {**BASE, **shared, **row.given}
        if row.plain is not UNSET:
            plain[name] = row.plain
        return plain, {**plain, name: row.other}

    def settings(self, changes: Mapping[str, Any]) -> Settings:
        """Settings, with a new folder in place of "@fresh"."""
        fresh = self._fresh / str(next(self._numbers))
        fresh.mkdir(parents=True)
        places = {"@shared/": f"{self.shared}/", "@fresh/": f"{fresh}/"}
        placed = dict(changes)
        for (name, value), (mark, place) in itertools.product(changes.items(), places.items()):
            if isinstance(value, str):
                placed[name] = placed[name].replace(mark, place)
        return Settings().replace(**placed)

    def look(self, row: Row, changes: Mapping[str, Any], *, again: bool = False) -> str:
        """A digest of what the row's observer sees."""
        key = f"{id(row.shows)} {json.dumps(changes, sort_keys=True)}"
        if again or key not in self._seen:
            seen = row.shows(self, self.settings(changes))
            self._seen[key], self._amounts[key] = digest(seen), list(numbers(seen))
        return self._seen[key]

    def amount(self, row: Row, plain: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
        """How long the numbers of both sides are as vectors, and how far they are apart."""
        for side in (plain, other):
            self.look(row, side)
        keys = (f"{id(row.shows)} {json.dumps(side, sort_keys=True)}" for side in (plain, other))
        before, after = (self._amounts[key] for key in keys)
        pairs = list(itertools.zip_longest(before, after, fillvalue=0.0))
        apart = (one - other for one, other in pairs)
        return [math.hypot(*before), math.hypot(*after), math.hypot(*apart)]

    @contextmanager
    def prepared(self, settings: Settings) -> Iterator[Resources]:
        """A run's resources; base models are read once and copied."""
        ready, _ = outcome(prepare(planning.plan(settings)))
        try:
            yield ready
        finally:
            ready.close()

    def load_family(self, *args: Any, **kwargs: Any) -> Any:
        """In place of the product's own: a copy of what it read for the same arguments."""
        key = repr((args, sorted(kwargs.items())))
        if key not in self._families:
            self._families[key] = self._read(*args, **kwargs)
            gc.freeze()
        family = self._families[key]
        tokenizers = [value for name, value in vars(family).items() if name.startswith("token")]
        return copy.deepcopy(family, {id(tokenizer): tokenizer for tokenizer in tokenizers})


def digest(seen: object) -> str:
    """A text that is equal for equal things, whatever they are made of."""
    if isinstance(seen, torch.Tensor):
        plain = seen.detach().cpu().contiguous()
        return f"{plain.dtype}{tuple(plain.shape)}" + _hashed(plain.view(-1).view(torch.uint8))
    if isinstance(seen, Mapping):
        return "{" + ", ".join(f"{key}: {digest(seen[key])}" for key in seen) + "}"
    if isinstance(seen, list | tuple):
        return "[" + ", ".join(map(digest, seen)) + "]"
    return repr(seen)


def numbers(seen: object) -> Iterator[float]:
    """Every number in it; of a tensor its sum and its length, of a text a 1 and a file's step."""
    if isinstance(seen, np.ndarray):
        seen = torch.from_numpy(seen)
    if isinstance(seen, torch.Tensor):
        plain = seen.detach().double()
        yield from (plain.sum().item(), plain.norm().item())
    elif isinstance(seen, bool | int | float):
        yield float(seen)
    elif isinstance(seen, str):
        yield from (1.0, *map(float, STEP_OF_NAME.findall(seen)))
    elif isinstance(seen, Mapping):
        yield from itertools.chain.from_iterable(map(numbers, seen.values()))
    elif isinstance(seen, list | tuple):
        yield from itertools.chain.from_iterable(map(numbers, seen))
    elif is_dataclass(seen):
        yield from numbers(vars(seen))


def _hashed(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]


def build_fixtures(folder: Path) -> Path:
    """Models of all families, and pictures with captions, masks, transparency and classes."""
    for family in ("sd1", "sd2", "sdxl"):
        write_tiny(folder / "models" / family, family, thin=True)
    write_tiny(folder / "models" / "other", "sd1", thin=True, seed=1)
    write_tiny(folder / "models" / "sd2-v", "sd2", thin=True, predicts="v_prediction")
    write_tiny(folder / "models" / "whole", "sd1")
    write_tiny(folder / "models" / "inpainting", "sd1", thin=True, inpainting=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        build_vae(0.18215).save_pretrained(folder / "vae")
    _draw_images(folder)
    shutil.copytree(folder / "images" / "2_zib ball", folder / "flat")
    for number, path in enumerate(sorted((folder / "flat").glob("*.png"))):
        path.with_suffix(".caption").write_text(f"other words, {number}")
    (folder / "reg" / "1_ball").mkdir(parents=True)
    random = np.random.default_rng(1)
    draw_subject("gray", "center", random).save(folder / "reg" / "1_ball" / "r.png")
    _write_start(folder / "start.safetensors", rank=3)
    (folder / "state").mkdir()
    (folder / "state" / "state.pt").touch()
    write_record(folder / "state", RunRecord("", seed=5, step=2))
    (folder / "dataset.toml").write_text(DATASET)
    (folder / "prompts.txt").write_text("a zib ball --s 1 --d 4\n")
    (folder / "trackers.toml").write_text('[wandb]\ngroup = "cats"\n')
    return folder


def _draw_images(folder: Path) -> None:
    concept, masks = folder / "images" / "2_zib ball", folder / "masks"
    concept.mkdir(parents=True)
    masks.mkdir()
    random = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        picture = draw_subject("gray", "center", random).resize(size).convert("RGBA")
        mask = np.zeros((picture.height, picture.width), np.uint8)
        mask[:, : 16 + 8 * number] = 255
        Image.fromarray(mask).save(masks / f"{number}.png")
        if number == 0:
            picture.putalpha(Image.fromarray(mask))
        picture.save(concept / f"{number}.png")
        (concept / f"{number}.txt").write_text(TAGS)


def _write_start(path: Path, *, rank: int) -> None:
    """A LoRA of one module of the tiny U-Net, of this rank."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    draw = torch.Generator().manual_seed(0)
    tensors = {
        f"{name}.alpha": torch.tensor(2.0),
        f"{name}.lora_down.weight": torch.randn(rank, 32, generator=draw),
        f"{name}.lora_up.weight": torch.randn(32, rank, generator=draw),
    }
    write_lora(path, tensors, {}, save_as="safetensors")
