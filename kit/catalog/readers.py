"""Which programs read what a LoRA file holds: rows of the catalog, and the sentences made of them.

Measured with the programs' own code (ComfyUI of 2025-10, Forge, A1111 1.10's network modules,
diffusers 0.42.1): "reads" means every key loaded, and an error below 2e-5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

NOT = "does not read it"
LABELS = {"a1111": "A1111", "forge": "Forge", "comfyui": "ComfyUI", "diffusers": "diffusers"}


@dataclass(frozen=True)
class ReadBy:
    """Of each program: "" where it reads the change exactly, else what it does."""

    a1111: str = ""
    forge: str = ""
    comfyui: str = ""
    diffusers: str = ""

    def with_(self, *others: ReadBy) -> ReadBy:
        """One file with all of these: who does not read one of them, does not read it."""
        rows = (self, *others)
        return ReadBy(*(_joined(getattr(row, each.name) for row in rows) for each in fields(self)))

    @property
    def sentence(self) -> str:
        """Such as "A1111 and Forge read it; ComfyUI and diffusers do not"."""
        said = {label: getattr(self, name) for name, label in LABELS.items()}
        exact = [label for label, text in said.items() if not text]
        never = [label for label, text in said.items() if text == NOT]
        parts = [f"{_listed(exact)} read{'s' * (len(exact) == 1)} it"] if exact else []
        parts += [f"{label} {text}" for label, text in said.items() if text and text != NOT]
        if never:
            verb = "does" if len(never) == 1 else "do"
            parts.append(f"{_listed(never)} {verb} not" + (" read it" if not parts else ""))
        return "; ".join(parts)


def _joined(texts: Iterable[str]) -> str:
    found = list(dict.fromkeys(text for text in texts if text))
    return NOT if NOT in found else ", ".join(found)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


EVERYWHERE = ReadBy()
LYCORIS = ReadBy(diffusers=NOT)
IA3 = ReadBy(
    a1111="reads it, but for the attention of OpenCLIP encoders, and for convolutions with "
    "train_on_input off, where it fails",
    forge=NOT,
    comfyui=NOT,
    diffusers=NOT,
)
GLORA = ReadBy(a1111=NOT, diffusers=NOT)
ROTATION = ReadBy(a1111="reads it over a base in 32 bits only", forge=NOT, diffusers=NOT)
FULL = ReadBy(
    a1111="reads it, but for the biases of q, k and v in OpenCLIP encoders", diffusers=NOT
)

_WRONG = "computes its DoRA wrongly, because the magnitudes are of outputs"
DORA = ReadBy(diffusers="drops DoRA's magnitudes")
DORA_OF_OUTPUTS = ReadBy(_WRONG, _WRONG, _WRONG, DORA.diffusers)
# It looks for these alphas under names that no layer has.
MIXED_ALPHAS = ReadBy(
    diffusers="gives attention, text encoders and layers without alpha the most frequent one"
)
RESCALED_OFT = ReadBy(comfyui="ignores the rescaling (14 % off)")
# Of files that LyCORIS writes and we wrote once.
TUCKER_LOKR = ReadBy(forge="fails on Tucker's core", comfyui="drops the 3x3 layers", diffusers=NOT)
LIMITED_OFT = ReadBy(comfyui="loses nearly all of it, because alpha is a constraint")


@dataclass(frozen=True)
class Modifier:
    """A setting that changes who reads the file."""

    setting: str
    read_by: ReadBy
    kinds: tuple[str, ...] = ()  # of these LoRA types alone; blank: of all that use it
    beside: str = ""  # only where this setting is on, too


MODIFIERS = (
    Modifier("dora_wd", DORA),
    Modifier("wd_on_output", DORA_OF_OUTPUTS, beside="dora_wd"),
    Modifier("use_tucker", LYCORIS),
    Modifier("train_norm", LYCORIS),
    Modifier("rescaled", RESCALED_OFT, kinds=("LyCORIS/Diag-OFT",)),
    Modifier("constraint", EVERYWHERE),  # the blocks are stored limited
)
