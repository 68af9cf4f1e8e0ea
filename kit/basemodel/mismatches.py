"""What does not go with the base model, and the values that mend it.

Told before anything is fetched, as far as a file here, the catalog or a claim says what the model
is. The same questions are asked again when a model has come that was not known before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import catalog
from kit.basemodel.detecting import EPSILON, ModelFile, V
from kit.basemodel.preflight import found_model
from kit.errors import Unreadable
from kit.reading.fields import Table
from kit.reading.texts import read_json
from kit.settings import Model, Noise, declarations
from kit.settings.links import tidied

SMALL = 0.6  # of the pixels that a model was made for; below, pictures suffer
LARGE = 3.0  # times as many; above, a step takes that much longer for little
SD2_V_SIDE = 768  # pixels; the other SD 2.x were made for 512
_V_NAME = re.compile(r"v[-_ ]?pred", re.IGNORECASE)
_INPAINTS: Mapping[str, Any] = {"train_inpainting": True, "cache_latents": False}


@dataclass(frozen=True)
class Mismatch:
    """A warning in a sentence, and what a button beside it would set."""

    text: str
    button: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """What is known of a base model, from its file, the catalog, or a claim."""

    family: str
    side: int  # pixels of the square it was made for
    predicts: str | None = None
    zero_terminal_snr: bool = False
    is_inpainting: bool | None = None  # None: only the file would say
    is_here: bool = False

    @property
    def label(self) -> str:
        """The family's full name."""
        return catalog.FAMILIES[self.family].label


def known_of(model: Model) -> Known | None:
    """The base model that a run names, or None where nothing is known of it yet."""
    found = found_model(model.pretrained_model_name_or_path)
    if isinstance(found, ModelFile):
        return known_of_file(found)
    if row := catalog.base_model(tidied(model.pretrained_model_name_or_path)):
        return Known(row.family, row.side, row.predicts, row.zero_terminal_snr)
    claims = {"sdxl": model.sdxl, "sd2": model.v2}
    family = next((name for name, is_claimed in claims.items() if is_claimed), "")
    return Known(family, catalog.FAMILIES[family].native_size) if family else None


def known_of_file(file: ModelFile) -> Known:
    """The same from the file or folder itself."""
    side = _own_side(file) or catalog.FAMILIES[file.family].native_size
    if file.family == "sd2" and file.predicts == V and not file.is_folder:
        side = SD2_V_SIDE
    return Known(
        file.family, side, file.predicts, file.zero_terminal_snr, file.is_inpainting, is_here=True
    )


def mismatches(model: Model, noise: Noise, size: tuple[int, int]) -> Iterator[Mismatch]:
    """Each thing that does not go with the base model; nothing where the model is not known.

    size: of the training, (width, height) in pixels.
    """
    known = known_of(model)
    if known is None:
        return
    yield from size_mismatches(known, size)
    yield from _claims(known, model)
    yield from _prediction(known, model)
    yield from _noise(known, model, noise)


def size_mismatches(known: Known, size: tuple[int, int]) -> Iterator[Mismatch]:
    """A resolution that is much smaller or larger than what the model was made for."""
    width, height = size
    share = width * height / known.side**2
    remedy = (f"Set {known.side} x {known.side}", {"resolution": f"{known.side},{known.side}"})
    made = f"This {known.label} was made for pictures of about {known.side} x {known.side}"
    if share < SMALL:
        yield Mismatch(
            f"{made}, and the resolution is {width} x {height}: at that size it cannot draw well, "
            "and neither will the LoRA.",
            *remedy,
        )
    elif share > LARGE:
        yield Mismatch(
            f"{made}, and the resolution is {width} x {height}: {share:.3g} times as many pixels, "
            "which take that much more time and memory.",
            *remedy,
        )


def of_other_families(known: Known, changed: Iterable[str]) -> Iterator[str]:
    """Settings that belong to other base models; a claim about the model itself is checked."""
    for name in changed:
        declared = declarations()[name]
        if known.family not in declared.families and declared.section != "model":
            yield f"{name} has no effect: the base model is a {known.label}"


def unfit_losses(known: Known, model: Model, noise: Noise) -> Iterator[str]:
    """Noise and weights of losses that belong to the other prediction; some would be refused."""
    for each in _noise(known, model, noise):
        refused = {"scale_v_pred_loss_like_noise_pred", "v_pred_like_loss"} & each.values.keys()
        yield f"training would be refused: {each.text}" if refused else each.text


def _claims(known: Known, model: Model) -> Iterator[Mismatch]:
    for name, claim, family in (("v2", model.v2, "sd2"), ("sdxl", model.sdxl, "sdxl")):
        if claim is not None and claim != (known.family == family):
            yield Mismatch(
                f"{name} is {'on' if claim else 'off'}, but the base model is a {known.label}.",
                f"Leave {name} to the model",
                {name: None},
            )
    if known.is_inpainting and not model.train_inpainting:
        yield Mismatch(
            "This model was made to paint into holes, and is trained with holes only.",
            "Train inpainting",
            _INPAINTS,
        )
    if known.is_inpainting is False and model.train_inpainting:
        yield Mismatch(
            "Train inpainting model is on, and this model was not made to paint into holes.",
            "Turn it off",
            {"train_inpainting": False},
        )


def _prediction(known: Known, model: Model) -> Iterator[Mismatch]:
    claim, by_file = model.v_parameterization, {"v_parameterization": None}
    if known.predicts == V and claim is False:
        yield Mismatch(
            "This model predicts v, and v_parameterization is off: the LoRA would learn noise.",
            "Take what the model says",
            by_file,
        )
    if known.predicts == EPSILON and claim:
        yield Mismatch(
            "v_parameterization is on, and this model predicts noise: the LoRA would learn noise.",
            "Take what the model says",
            {**by_file, "scale_v_pred_loss_like_noise_pred": False},
        )
    if known.predicts is None and known.is_here and claim is None:
        name = Path(tidied(model.pretrained_model_name_or_path)).name
        if _V_NAME.search(name) or (known.family == "sd2" and "768" in name):
            yield Mismatch(
                f"The name {name} says that the model predicts v; the file itself does not say "
                "so, and noise would be assumed.",
                "It predicts v",
                _v_values(known),
            )
        elif known.family == "sd2":
            yield Mismatch(
                "This Stable Diffusion 2.x file does not say what it predicts; noise is assumed. "
                "Those made for 768 x 768 predict v.",
                "It predicts v",
                _v_values(known),
            )


def _v_values(known: Known) -> dict[str, Any]:
    side = {"resolution": f"{SD2_V_SIDE},{SD2_V_SIDE}"} if known.family == "sd2" else {}
    return {"v_parameterization": True, **side}


def _noise(known: Known, model: Model, noise: Noise) -> Iterator[Mismatch]:
    is_v = (
        known.predicts == V if model.v_parameterization is None else bool(model.v_parameterization)
    )
    is_told = known.predicts is not None or model.v_parameterization is not None
    if noise.zero_terminal_snr is False and known.zero_terminal_snr:
        yield Mismatch(
            "This model was trained with zero terminal SNR, and zero_terminal_snr is off.",
            "Take what the model says",
            {"zero_terminal_snr": None},
        )
    if noise.zero_terminal_snr and is_told and not is_v:
        yield Mismatch(
            "zero_terminal_snr is on, and this model predicts noise, which says nothing about the "
            "picture there.",
            "Take what the model says",
            {"zero_terminal_snr": None},
        )
    if noise.scale_v_pred_loss_like_noise_pred and is_told and not is_v:
        yield Mismatch(
            "scale_v_pred_loss_like_noise_pred is on, and this model predicts noise.",
            "Turn it off",
            {"scale_v_pred_loss_like_noise_pred": False},
        )
    if noise.v_pred_like_loss and is_v:
        yield Mismatch(
            "v_pred_like_loss is for models that predict noise, and this one predicts v.",
            "Set 0",
            {"v_pred_like_loss": 0.0},
        )


def _own_side(file: ModelFile) -> int:
    """The side that a diffusers folder says it was made for; 0 where it says nothing."""
    if not file.is_folder:
        return 0
    try:
        path = file.path / "unet" / "config.json"
        return 8 * Table(read_json(path), path).whole("sample_size", 0, least=0)
    except Unreadable:  # some configs hold two sides
        return 0
