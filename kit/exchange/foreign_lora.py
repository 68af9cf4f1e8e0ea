"""LoRA files of other programs: their tensors' names in kohya's words, told without torch.

    found = recognised(path, names_and_shapes, metadata)
    found.layout, found.names, found.alphas, found.left

kohya names a module `lora_<part>_<path with _>` and its tensors `lora_up.weight`,
`lora_down.weight`, `alpha`. Others write the same numbers by other names, and PEFT leaves alpha to
a JSON beside them. What the numbers themselves need, is in `kit.exchange.foreign_tensors`; which
of two spellings of a U-Net's path the base model has, is in `kit.families.placing`.

Sources: https://huggingface.co/docs/diffusers/tutorials/using_peft_for_inference and PEFT's
checkpoint format, https://huggingface.co/docs/peft/developer_guides/checkpoint; the others were
read from their files.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.basemodel.headers import SUFFIXES, read_header
from kit.catalog.lora_shapes import Shape
from kit.errors import LoraFileError, ModelError, Unreadable
from kit.reading import paths
from kit.reading.fields import Table
from kit.reading.texts import from_json, read_text

CONFIG = "adapter_config.json"  # PEFT's, beside its weights
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
METADATA = "lora_adapter_metadata"  # the same in a safetensors header, from diffusers
DIFFUSERS, OLD_DIFFUSERS = "diffusers (PEFT)", "diffusers before PEFT"
PEFT_FOLDER, ONE_TRAINER = "a PEFT adapter folder", "OneTrainer (OMI)"
COMFYUI, LYCORIS = "ComfyUI's trainer (LDM names)", "LyCORIS in diffusers"
KOHYA_OFT, OLD_OFT = "kohya's OFT", "LyCORIS before 2.1 (oft_diag)"
MAGNITUDE, ROTATION = "lora_magnitude_vector", "oft_diag"

# How a name ends, and the role that it has with kohya.
_ENDINGS: tuple[tuple[str, str, str], ...] = (
    (r"\.lora_A(?:\.default)?\.weight", "lora_down.weight", DIFFUSERS),
    (r"\.lora_B(?:\.default)?\.weight", "lora_up.weight", DIFFUSERS),
    (rf"\.{MAGNITUDE}(?:\.default)?(?:\.weight)?", MAGNITUDE, DIFFUSERS),
    (r"\.processor\.to_(?P<to>[qkv]|out)_lora\.down\.weight", "lora_down.weight", OLD_DIFFUSERS),
    (r"\.processor\.to_(?P<to>[qkv]|out)_lora\.up\.weight", "lora_up.weight", OLD_DIFFUSERS),
    (r"\.lora(?:_linear_layer)?\.down\.weight", "lora_down.weight", OLD_DIFFUSERS),
    (r"\.lora(?:_linear_layer)?\.up\.weight", "lora_up.weight", OLD_DIFFUSERS),
    (rf"\.{ROTATION}", ROTATION, OLD_OFT),
)
_KOHYAS_ENDING = re.compile(
    r"(.+?)\.((?:lora_(?:up|down|mid)|[ab][12]|bm)\.weight|alpha|dora_scale|scalar|rescale|oft_blocks"
    r"|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t[12])|diff(?:_b)?|[wb]_norm|on_input"
    r"|weight)"
)
_COMPILED = [(re.compile(rf"(?P<stem>.+?){end}"), role, whose) for end, role, whose in _ENDINGS]
# How a name begins, the part that it belongs to ("" where the rest tells), and whose it is.
_BEGINNINGS: tuple[tuple[str, str, str], ...] = (
    ("unet.", "unet", ONE_TRAINER),
    ("text_encoder_2.", "te2", ONE_TRAINER),
    ("text_encoder.", "te", ONE_TRAINER),
    ("clip_l.", "te", ONE_TRAINER),
    ("clip_g.", "te2", ONE_TRAINER),
    ("base_model.model.", "", PEFT_FOLDER),
    ("diffusion_model.", "unet", COMFYUI),
    ("lycoris_", "", LYCORIS),
    ("oft_unet_", "unet", KOHYA_OFT),
)
_UNET_PATH = re.compile(r"(?:down_blocks|mid_block|up_blocks|conv_|time_embedding|add_embedding)")
_TEXT_PATH = re.compile(r"(?:text_model[._])?encoder[._]layers|text_model[._]")
# What makes a file one that cannot be converted, and why.
_REFUSED: tuple[tuple[str, str], ...] = (
    (r"\.oft_[RS](?:\.|$)", "PEFT's OFT, which turns a layer's inputs; OFT here turns its outputs"),
    (r"\.boft_[Rs](?:\.|$)", "PEFT's BOFT, which turns a layer's inputs; BOFT here its outputs"),
    (r"\.ia3_l(?:\.|$)", "PEFT's IA3"),
    (r"\.vera_|\.lora_embedding_|\.randlora_", "PEFT's adapter for other layers than LoRA's"),
    (r"^base_model\.model\.(?!.*\.lora_).*\.(?:weight|bias)$", "a PEFT adapter with whole layers"),
    (r"\.lora_[AB](?:\.default)?\.bias$", "a LoRA with biases (lora_bias), which nothing here has"),
    (
        r"(?:^|[._])(?:double_blocks|single_blocks|single_transformer_blocks|joint_blocks)[._]"
        r"|^transformer\.|(?:^|[._])joint_transformer_blocks",
        "for a transformer model such as Flux or Stable Diffusion 3",
    ),
)
_DO = "Choose a LoRA for Stable Diffusion 1.x, 2.x or XL, or have it written in kohya's layout."


@dataclass(frozen=True)
class Found:
    """What a LoRA file's tensors are called here."""

    layout: str  # whose names they are; "" for kohya's own
    names: Mapping[str, str]  # of the file -> here; a name that is left out is not among them
    alphas: Mapping[str, float] = field(default_factory=dict)  # by module; not among the tensors
    left: tuple[str, ...] = ()  # what is left out, in sentences


@dataclass(frozen=True)
class _Name:
    """One tensor's name, taken apart."""

    part: str  # "unet", "te", "te1", "te2", "" where it is no adapter's
    path: str  # within the part, with dots or underscores
    role: str
    layout: str

    @property
    def module(self) -> str:
        """In kohya's words."""
        path = self.path.replace(".", "_")
        if self.part != "unet" and not path.startswith("text_model_"):
            path = f"text_model_{path}"  # transformers 5.6 left this level out
        return f"lora_{self.part}_{path}"


def recognised(path: Path, shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> Found:
    """Whose layout a LoRA file has, and what its tensors are called here.

    shapes: by name. A PEFT adapter's configuration is read from beside the file.

    Raises: LoraFileError, in one line, where it cannot be converted exactly.
    """
    refuse_others(path, shapes)
    parsed = {name: _parse(name) for name in shapes}
    if any(name.part == "te2" for name in parsed.values()):  # then the other is the first of two
        parsed = {
            key: _Name("te1", name.path, name.role, name.layout) if name.part == "te" else name
            for key, name in parsed.items()
        }
    layouts = Counter(name.layout for name in parsed.values() if name.part and name.layout)
    layout = layouts.most_common(1)[0][0] if layouts else ""
    names = {key: f"{n.module}.{n.role}" if n.layout else key for key, n in parsed.items()}
    extra = {key for key, name in parsed.items() if not name.part or name.role == "scalar"}
    try:
        alphas = _alphas(path, shapes, parsed, metadata)
    except (TypeError, ValueError, AttributeError, IndexError, OSError) as error:
        raise _refusal(path, f"cannot be read: its alphas are damaged ({error})") from error
    kept = {key: name for key, name in names.items() if key not in extra}
    if len(set(kept.values())) < len(kept):
        raise _refusal(path, "names one layer twice, in two layouts")
    return Found(layout, kept, alphas, tuple(_left_out(extra)))


def refuse_others(path: Path, names: Collection[str]) -> None:
    """Say in one line what cannot be converted.

    Raises: LoraFileError.
    """
    for pattern, what in _REFUSED:
        fitting = next((name for name in names if re.search(pattern, name)), None)
        if fitting:
            raise _refusal(path, f"is {what} ({fitting}), and cannot be converted")


def _refusal(path: Path, what: str) -> LoraFileError:
    possible = "kohya's, LyCORIS', diffusers', PEFT's, OneTrainer's and ComfyUI's LoRAs are read."
    return LoraFileError(f"{path.name} {what}.", possible, _DO)


def _parse(name: str) -> _Name:
    """A name as part, path and role; kohya's own stay whole."""
    stem, role, layout = _ending(name)
    for beginning, part, owner in _BEGINNINGS:
        if role and stem.startswith(beginning) and (owner == LYCORIS or role != "weight"):
            path = stem.removeprefix(beginning)
            whose = owner if beginning == "base_model.model." else layout or owner
            part = part or ("te" if _TEXT_PATH.match(path) else "unet")
            return _Name(part, path, role, whose)
    if role and layout and _UNET_PATH.match(stem):  # of a U-Net alone, without a beginning
        return _Name("unet", stem, role, layout)
    match = re.match(r"lora_(unet|te[12]?)_", stem) if role else None
    if match is None:
        return _Name("", stem, role, "")
    own = layout if role == ROTATION else ""
    path = stem.removeprefix(match[0])
    return _Name(match[1], path, role, own)


def _ending(name: str) -> tuple[str, str, str]:
    """Stem, role in kohya's words (MAGNITUDE and ROTATION have none), and whose ending it is."""
    for pattern, role, layout in _COMPILED:
        if match := pattern.fullmatch(name):
            to = match.groupdict().get("to")
            stem = match["stem"]
            return (f"{stem}.to_{to}" + ".0" * (to == "out") if to else stem), role, layout
    match = _KOHYAS_ENDING.fullmatch(name)
    if match is None:
        module, _, role = name.partition(".")  # an unknown role of kohya's names is judged later
        known = module.startswith(("lora_unet_", "lora_te"))
        return (module, role, "") if known else (name, "", "")
    return match[1], match[2], ""


def _left_out(extra: Collection[str]) -> Iterator[str]:
    """What lies beside a good LoRA."""
    scalars = sum(name.endswith(".scalar") for name in extra)
    embeddings = {name.split(".")[1] for name in extra if name.startswith("bundle_emb.")}
    others = [n for n in sorted(extra) if not n.endswith(".scalar") and "bundle_emb." not in n]
    if scalars:
        yield f"{scalars} scalars are left out, as other programs do"
    if embeddings:
        yield f"it carries embeddings ({', '.join(sorted(embeddings))}), which are left out"
    if others:
        yield f"{len(others)} tensors belong to no adapter, e.g. {others[0]}; they are left out"


# ------------------------------------------------------------------------------------------ alpha


def _alphas(
    path: Path,
    shapes: Mapping[str, Shape],
    parsed: Mapping[str, _Name],
    metadata: Mapping[str, str],
) -> dict[str, float]:
    """What PEFT's configuration says, for modules without a tensor that does."""
    is_folder = any(name.layout == PEFT_FOLDER for name in parsed.values())
    whole = _folder_config(path) if is_folder else _header_config(path, metadata)
    told = {name.module for name in parsed.values() if name.part and name.role == "alpha"}
    alphas = {}
    for key, name in parsed.items():
        if not name.part or not name.layout or name.role != "lora_down.weight":
            continue
        config = whole if is_folder else _of_part(whole, name.part)
        if config and name.module not in told:
            alphas[name.module] = _alpha(path, config, name.path, rank=shapes[key][0])
    return alphas


def _folder_config(path: Path) -> dict[str, Any]:
    file = path.parent / CONFIG
    if not paths.is_file(file):
        raise _refusal(path, f"is of a PEFT adapter folder, and its {CONFIG} is not beside it")
    try:
        config = _json(path, read_text(file), CONFIG)
    except Unreadable as error:
        raise _refusal(path, f"cannot be read: its {CONFIG} {error.why}") from error
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise _refusal(path, f"is PEFT's adapter of type {kind}, and only LORA can be converted")
    return config


def _header_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    return _json(path, metadata[METADATA], METADATA) if METADATA in metadata else {}


def _json(path: Path, text: str, what: str) -> dict[str, Any]:
    try:
        return Table(from_json(text, what), what).values
    except Unreadable as error:
        raise _refusal(path, f"cannot be read: its {what} is damaged ({error.why})") from error


def _of_part(whole: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Diffusers writes all parts' configurations into one, with a prefix."""
    prefix = {"unet": "unet.", "te2": "text_encoder_2."}.get(part, "text_encoder.")
    return {key.removeprefix(prefix): v for key, v in whole.items() if key.startswith(prefix)}


def _alpha(path: Path, config: Mapping[str, Any], layer: str, *, rank: int) -> float:
    """Alpha as kohya means it: the strength is alpha / rank, with rsLoRA too."""
    patterns = config.get("alpha_pattern") or {}
    fitting = (value for key, value in patterns.items() if _fits(path, key, layer))
    alpha = float(next(fitting, config.get("lora_alpha", rank)))
    if not math.isfinite(alpha) or rank < 1:
        raise ValueError(f"alpha {alpha}, rank {rank}")
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _fits(path: Path, pattern: str, layer: str) -> bool:
    """PEFT takes the end of a path, as a regular expression; a stranger's is not run."""
    plain = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[\w.]+", plain):
        raise _refusal(path, f"gives alphas by the pattern {pattern!r}; only plain names are read")
    if pattern.startswith("^"):
        return layer == plain
    return layer == plain or layer.endswith(f".{plain}")


# ------------------------------------------------------------------------------- files and the plan


def file_of(path: Path) -> Path:
    """The weights of a PEFT adapter folder; any other path as it is."""
    if not (paths.is_folder(path) and paths.is_file(path / CONFIG)):
        return path
    return next((path / name for name in WEIGHTS if paths.is_file(path / name)), path)


def foreseen_conversion(network_weights: str) -> Iterator[str]:
    """What the plan says of network_weights in another program's layout."""
    text = network_weights.strip()
    try:
        path = file_of(paths.path_of(text)) if text else Path()
        if not paths.is_file(path) or path.suffix.lower() not in SUFFIXES:
            return
        header = read_header(path)
        found = recognised(path, header.shapes, header.metadata)
    except LoraFileError as error:
        yield f"training would be refused: network_weights: {error.found}"
    except (ModelError, Unreadable, OSError):
        return  # told by kit.basemodel.preflight
    else:
        if found.layout:
            yield f"network_weights is in the layout of {found.layout} and is converted"
        if found.names:
            yield from (f"network_weights: {sentence}" for sentence in found.left)
