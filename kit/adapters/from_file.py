"""Going on from a LoRA file: which modules it has, of which type, and what fits where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kit.adapters.base import Adapter, number_in
from kit.catalog.lora_shapes import Shapes
from kit.errors import LoraFileError

# A tensor that only one family of types has -> LoRA types that can go on from such a file.
WRITTEN_BY = {
    "hada_w1_a": "LyCORIS/LoHa or Kohya LoHa",
    "lokr_w1": "LyCORIS/LoKr or Kohya LoKr",
    "lokr_w1_a": "LyCORIS/LoKr or Kohya LoKr",
    "a1.weight": "LyCORIS/GLoRA",
    "on_input": "LyCORIS/iA3",
    "diff": "LyCORIS/Native Fine-Tuning",
    "oft_blocks": "LyCORIS/Diag-OFT or LyCORIS/BOFT",
    "w_norm": "a LyCORIS type and turn train_norm on",
    "lora_mid.weight": "LyCORIS/LoCon",
    "dora_scale": "LyCORIS/LoCon",
    "lora_up.weight": "Standard, Kohya LoCon or LyCORIS/LoCon",
}

# LyCORIS 3.2's preset full adapts these too, under the names of diffusers or of Stability's code.
OUTSIDE_BLOCKS = re.compile(
    r"lora_unet_(conv_(in|out)|(time|add)_embedding_linear_\d|time_embed_\d|label_emb_\d_\d"
    r"|input_blocks_0_0|out_2)"
)


@dataclass(frozen=True)
class Entry:
    """One module of a LoRA file."""

    kind: type[Adapter]
    tensors: Mapping[str, Tensor]  # by role

    @property
    def shapes(self) -> Shapes:
        """Of all but alpha."""
        return {role: tuple(t.shape) for role, t in self.tensors.items() if role != "alpha"}

    @property
    def rank(self) -> int:
        """0 for types without one."""
        return self.kind.rank_of(self.shapes)

    @property
    def alpha(self) -> float:
        """A missing alpha means alpha = rank."""
        return number_in(self.tensors, "alpha", self.rank)

    @property
    def options(self) -> dict[str, Any]:
        """What the module decides beside shapes, rank and alpha."""
        return self.kind.options_of(self.tensors)


def entries_of(tensors: Mapping[str, Tensor], kinds: Iterable[type[Adapter]]) -> dict[str, Entry]:
    """A LoRA file's modules by name; kinds: the adapters that the LoRA type may use.

    Raises: LoraFileError where a module is of another type, or no module at all.
    """
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, role = key.partition(".")
        modules.setdefault(name, {})[role] = tensor
    entries = {}
    for name, roles in modules.items():
        shapes = {role: tuple(t.shape) for role, t in roles.items() if role != "alpha"}
        kind = next((kind for kind in kinds if kind.reads(shapes)), None)
        if kind is None:
            raise LoraFileError(
                f"network_weights: the module {name} holds {', '.join(sorted(roles))}, which the "
                "chosen LoRA_type does not.",
                "A file can be continued with the type that it was trained with.",
                f"Set LoRA_type to {_writers(roles)}, or choose another file.",
            )
        entries[name] = _readable(name, Entry(kind, roles))
    return entries


def _readable(name: str, entry: Entry) -> Entry:
    """The same, when its numbers can be read."""
    try:
        if complex_ones := [role for role, t in entry.tensors.items() if t.is_complex()]:
            raise ValueError(f"{complex_ones[0]} holds complex numbers")
        assert entry.rank >= 0 and entry.alpha is not None and entry.options is not None
    except ValueError as error:
        raise misfit([f"{name}: {error}"]) from error
    return entry


def _writers(roles: Iterable[str]) -> str:
    found = set(roles)
    return next((kinds for role, kinds in WRITTEN_BY.items() if role in found), "the file's")


def start_from(
    adapters: Mapping[str, Adapter], entries: Mapping[str, Entry], lora_type: str
) -> None:
    """Give every adapter its module's tensors.

    Raises: LoraFileError where the file has modules without a place, or of another size.
    """
    if unknown := [name for name in entries if name not in adapters]:
        if outside := [name for name in unknown if OUTSIDE_BLOCKS.fullmatch(name)]:
            raise _adapts_outside_blocks(outside)
        raise LoraFileError(
            f"network_weights holds {len(unknown)} modules that LoRA_type = {lora_type} has no "
            f"place for on this base model, e.g. {unknown[0]}.",
            "A file fits the family and the LoRA type it was trained with.",
            "Choose a type that adapts these layers (Kohya LoCon or LyCORIS/LoCon for "
            "convolutions), or a base model of the file's family.",
        )
    misfits = []
    for name, entry in entries.items():
        try:
            adapters[name].take({role: tensor.float() for role, tensor in entry.tensors.items()})
        except ValueError as error:
            misfits.append(f"{name}: {error}")
    if misfits:
        raise misfit(misfits)


def misfit(found: list[str]) -> LoraFileError:
    """The file does not fit; found: what is wrong with each module."""
    return LoraFileError(
        f"network_weights does not fit: {found[0]}"
        + (f", and {len(found) - 1} more." if len(found) > 1 else "."),
        "Rank and layers must be those of the file, and its base model's family that of this one.",
        "Where dim_from_weights is on, choose a base model of the file's family. Else turn it on, "
        "or set network_dim (and conv_dim) and the type's own settings to the file's.",
    )


def _adapts_outside_blocks(names: Sequence[str]) -> LoraFileError:
    """Going on without them would lose in silence what they learned."""
    return LoraFileError(
        f"network_weights adapts {len(names)} layers outside the U-Net's blocks "
        f"({', '.join(sorted(names))}), as LyCORIS's own preset full does; none of them can be "
        "trained here.",
        "LoRA Kit adapts the layers inside blocks; samplers read such a file as it is.",
        "Go on from a file without these modules, or train on with LyCORIS.",
    )
