"""What is broken in which training: a seeded sample over optimizers, LoRA types and faults."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from kit import catalog

# Each with how it is dealt in a hundred.
FAULTS = {
    "kill at an access": 30,  # the process is gone at the k-th access to its files
    "kill at a time": 16,  # ... or wherever it is then
    "kills in a row": 12,  # and again after each restart
    "kill of the command": 5,  # `kit train`, a process of its own
    "stop": 7,  # SIGTERM, SIGINT or SIGHUP
    "full disk": 10,  # the k-th access that writes finds no space left
    "read-only disk": 4,
    "flipped bit": 6,  # in the state that a kill left
    "folder gone": 4,  # output_dir is deleted between two steps
    "second run": 2,  # on the same folder while the first one works
    "clock": 4,  # after a kill the clock is a day back, and every picture looks new
}

# Any two go together; a case draws some of them.
OPTIONS: tuple[dict[str, Any], ...] = (
    {"save_every_n_steps": 2},
    {"save_every_n_steps": 2, "save_state": True},
    {"save_every_n_steps": 1, "save_last_n_steps": 2, "save_state": True},
    {"save_every_n_epochs": 1, "save_last_n_epochs": 1},
    {"save_state_on_train_end": True},
    {"sample_every_n_steps": 3, "sample_at_first": True},
    {"gradient_accumulation_steps": 2},
    {"full_bf16": True, "mixed_precision": "bf16"},
    {"cache_latents": True, "cache_latents_to_disk": True},
    {"cache_latents": False, "color_aug": True},
    {"shuffle_caption": True, "caption_dropout_rate": 0.3},
    {"lr_scheduler": "constant_with_warmup", "lr_warmup": 30},
    {"network_dropout": 0.2},
    {"noise_offset": 0.05, "min_snr_gamma": 5},
    {"scale_weight_norms": 1.0},
)


@dataclass(frozen=True)
class Case:
    """One training and its fault. `draw` seeds every further choice, such as the moment."""

    number: int
    fault: str
    optimizer: str
    lora_type: str
    draw: int
    options: dict[str, Any] = field(default_factory=dict)
    engine: str = "eager"  # "auto": recorded steps, by a stand-in for a GPU's graphs

    def __str__(self) -> str:
        made = f"{self.optimizer}, {self.lora_type}, {self.engine}, {self.options}"
        return f"{self.number} {self.fault}: {made}"

    def random(self) -> random.Random:
        """The case's own draws, the same each time."""
        return random.Random(self.draw)


def sample(count: int, seed: int = 1) -> list[Case]:
    """`count` cases: optimizers, LoRA types and faults in turn, each as often as the others."""
    draws = random.Random(seed)
    faults = _dealt(draws)
    rows = zip(
        _shuffled_rounds(list(catalog.OPTIMIZERS), draws),
        _shuffled_rounds(list(catalog.LORA_TYPES), draws),
        cycle(faults),
        strict=False,
    )
    return [
        Case(
            number,
            fault,
            optimizer,
            lora_type,
            draws.getrandbits(32),
            _options(draws, lora_type),
            # A process of its own has no stand-in.
            "auto" if number % 3 == 0 and fault != "kill of the command" else "eager",
        )
        for number, (optimizer, lora_type, fault) in enumerate(islice(rows, count), start=1)
    ]


def _dealt(draws: random.Random) -> list[str]:
    """A hundred faults by their shares, the rare ones spread: ten cases meet most kinds."""
    places = [
        ((turn + draws.random()) / share, fault)
        for fault, share in FAULTS.items()
        for turn in range(share)
    ]
    return [fault for _, fault in sorted(places)]


def _shuffled_rounds(names: list[str], draws: random.Random) -> Iterator[str]:
    while True:
        yield from draws.sample(names, len(names))


def _options(draws: random.Random, lora_type: str) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for option in draws.sample(OPTIONS, draws.randint(1, 4)):
        if not drawn.keys() & option.keys() and not _contradicts(option, drawn, lora_type):
            drawn |= option
    return drawn


def _contradicts(option: dict[str, Any], drawn: dict[str, Any], lora_type: str) -> bool:
    """What a plan refuses or tells has no effect."""
    together = option | drawn
    if together.get("color_aug") and together.get("cache_latents"):
        return True
    return lora_type == "LyCORIS/Native Fine-Tuning" and "network_dropout" in option
