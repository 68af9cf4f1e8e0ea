"""Detection of the base model in a file or folder, by names, shapes and small JSON files alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import catalog
from kit.basemodel.headers import SUFFIXES, Header, read_header
from kit.basemodel.weight_names import choose_weights
from kit.errors import ModelError, Unreadable
from kit.reading import paths
from kit.reading.fields import Table, kind_of
from kit.reading.texts import read_json

EPSILON, V = "epsilon", "v_prediction"
_POSSIBLE = "LoRA Kit trains Stable Diffusion 1.x, 2.x and XL."
_AS_WEIGHTS = "Put it into network_weights, and a base model into pretrained_model_name_or_path."

# Found in a tensor's name -> what the file is, what to do. The first that fits counts.
_OTHERS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("lora_down", "lora_up", "lora_A.", "lora_B.", "lora.down.", "lora.up."),
        "a LoRA",
        _AS_WEIGHTS,
    ),
    ((".hada_", ".lokr_", ".oft_", ".on_input", ".dora_scale"), "a LyCORIS file", _AS_WEIGHTS),
    (("control_model.", "controlnet_"), "a ControlNet", "Choose the base model it was made for."),
    (("joint_blocks.",), "a Stable Diffusion 3 model", "Choose another base model."),
    (
        ("double_blocks.", "single_transformer_blocks."),
        "a Flux model",
        "Choose another base model.",
    ),
    (("emb_params", "string_to_param"), "a textual inversion", "Choose a base model."),
)
# Looked for only where there is no U-Net of a single-file model.
_LONE_PARTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("down_blocks.0.resnets.0.time_emb_proj", "input_blocks.0.0.weight"),
        "a U-Net alone",
        "Choose a file or diffusers folder that holds text encoder and VAE as well.",
    ),
    (("decoder.conv_in.weight",), "a VAE alone", "Put it into the vae setting."),
    (
        ("embeddings.token_embedding.", "token_embedding.weight"),
        "a text encoder alone",
        "Choose a file or diffusers folder that holds U-Net and VAE as well.",
    ),
)
PLAIN, INPAINTING = 4, 9  # channels that a U-Net may read
_CHANNELS = {
    8: "an instruct-pix2pix model (its U-Net reads 8 channels)",
    5: "a depth model (its U-Net reads 5 channels)",
}


@dataclass(frozen=True)
class ModelFile:
    """A base model that was found, and what it says about itself."""

    path: Path
    is_folder: bool
    family: str  # "sd1", "sd2" or "sdxl"
    predicts: str | None  # "epsilon", "v_prediction", or None where the file does not say
    zero_terminal_snr: bool
    has_vae: bool = True  # some single files leave the VAE out; then the vae setting must name one
    is_inpainting: bool = False  # its U-Net reads a hole and the picture around it, too

    @property
    def label(self) -> str:
        """The family's full name."""
        return catalog.FAMILIES[self.family].label


def detect(path: Path) -> ModelFile:
    """What lies at this place; reads names and shapes only, never the weights.

    Raises: ModelError where it is no base model that can be trained, saying what it is instead.
    """
    if paths.is_folder(path):
        return _detect_folder(path)
    if paths.is_file(path):
        return _detect_file(path)
    raise ModelError(
        f"There is no {path}.",
        "A base model is a diffusers folder, a .safetensors or a .ckpt.",
        "Check pretrained_model_name_or_path.",
    )


def _detect_file(path: Path) -> ModelFile:
    header = read_header(path)
    names = header.shapes
    _refuse(path, names, _OTHERS)
    first = names.get("model.diffusion_model.input_blocks.0.0.weight")
    if first is None:
        _refuse(path, names, _LONE_PARTS)
        raise _wrong(path, "none of the models known here", "Choose another file.")
    channels = first[1] if len(first) > 1 else 0
    _refuse_channels(path, channels)
    return ModelFile(
        path=path,
        is_folder=False,
        family=_family_of_names(path, names),
        predicts=_prediction_of_file(header),
        zero_terminal_snr="ztsnr" in names,
        has_vae="first_stage_model.decoder.conv_in.weight" in names,
        is_inpainting=channels == INPAINTING,
    )


def _family_of_names(path: Path, names: Iterable[str]) -> str:
    """Told by the text encoder, as every loader does."""
    marks = {
        "conditioner.embedders.1.": "sdxl",
        "conditioner.embedders.0.model.": "refiner",
        "cond_stage_model.model.": "sd2",
        "cond_stage_model.transformer.": "sd1",
    }
    found = {family for name in names for mark, family in marks.items() if name.startswith(mark)}
    for family in ("sdxl", "sd2", "sd1"):
        if family in found:
            return family
    if "refiner" in found:
        raise _wrong(path, "the SDXL refiner", "Choose the SDXL base model.")
    raise _wrong(
        path,
        "a model without text encoder",
        "Choose a version of the model that holds all its parts.",
    )


def _prediction_of_file(header: Header) -> str | None:
    """By the marker tensor of v-prediction models, or by the modelspec of well-described files."""
    if "v_pred" in header.shapes:
        return V
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    return {"epsilon": EPSILON, "eps": EPSILON, "v": V, V: V}.get(said)


def _detect_folder(folder: Path) -> ModelFile:
    index = _read_json(folder / "model_index.json")
    unet = _read_json(folder / "unet" / "config.json")
    if unet is None or unet.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
        raise _no_diffusers_folder(folder, index)
    channels = unet.get("in_channels", PLAIN)
    _refuse_channels(folder, channels)
    family = _family_of_config(folder, unet)
    _check_parts(folder, family)
    scheduler = _read_json(folder / "scheduler" / "scheduler_config.json") or {}
    said = scheduler.get("prediction_type")
    if said not in (None, EPSILON, V):
        raise _wrong(folder, f"a model that predicts {said!r}", "Choose another base model.")
    return ModelFile(
        path=folder,
        is_folder=True,
        family=family,
        predicts=said,
        zero_terminal_snr=bool(scheduler.get("rescale_betas_zero_snr", False)),
        is_inpainting=channels == INPAINTING,
    )


def _family_of_config(folder: Path, unet: Mapping[str, Any]) -> str:
    """By layout, not by width: a miniature is of the same family as the model it resembles."""
    has_second = (folder / "text_encoder_2").is_dir()
    if unet.get("addition_embed_type") == "text_time" or has_second:
        if not (folder / "text_encoder").is_dir():
            raise _wrong(folder, "the SDXL refiner", "Choose the SDXL base model.")
        return "sdxl"
    if unet.get("use_linear_projection") or unet.get("cross_attention_dim") == 1024:
        return "sd2"
    return "sd1"


def _check_parts(folder: Path, family: str) -> None:
    second = ("text_encoder_2",) if family == "sdxl" else ()
    missing = []
    for part in ("unet", "vae", "text_encoder", *second):
        inside = [file.name for file in (folder / part).glob("*")]
        if "config.json" not in inside:
            missing.append(f"{part}/config.json")
        if choose_weights(inside) is None:
            missing.append(f"weights in {part}/")
    if missing:
        raise ModelError(
            f"{folder} is incomplete; it lacks {', '.join(missing)}.",
            "Weights are .safetensors or .bin files, plain or fp16.",
            "Fetch the model again.",
        )


def _no_diffusers_folder(folder: Path, index: Mapping[str, Any] | None) -> ModelError:
    """Says what the folder holds instead."""
    names = sorted(file.name for file in folder.iterdir())
    if index is not None:
        pipeline = str(index.get("_class_name", "unknown"))
        if pipeline.startswith("StableDiffusion") and "3" not in pipeline:
            return ModelError(
                f"{folder} is incomplete; it lacks unet/.", "", "Fetch the model again."
            )
        return _wrong(folder, f"a model for diffusers' {pipeline}", "Choose another base model.")
    if "adapter_config.json" in names or any("lora_weights" in name for name in names):
        return _wrong(folder, "a LoRA", _AS_WEIGHTS)
    single = [name for name in names if name.endswith(SUFFIXES)]
    hint = (
        f"Name the file itself, e.g. {folder / single[0]}." if single else "Choose another folder."
    )
    return ModelError(
        f"{folder} is not a diffusers model: there is no unet/config.json in it.",
        "A base model is a diffusers folder, a .safetensors or a .ckpt.",
        hint,
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    if not paths.is_file(path):
        return None
    try:
        return Table(read_json(path), path).values
    except Unreadable as error:
        raise ModelError(f"{path} {error.why}.", "", "Fetch the model again.") from error


def _refuse(
    path: Path, names: Iterable[str], table: Iterable[tuple[tuple[str, ...], str, str]]
) -> None:
    joined = "\n".join(names)
    for marks, what, do in table:
        if any(mark in joined for mark in marks):
            raise _wrong(path, what, do)


def _refuse_channels(path: Path, channels: object) -> None:
    if channels not in (PLAIN, INPAINTING):
        what = f"a model whose U-Net reads {kind_of(channels)} channels instead of 4"
        what = _CHANNELS.get(channels, what) if isinstance(channels, int) else what
        raise _wrong(path, what, "Choose the plain text-to-image model.")


def _wrong(path: Path, what: str, do: str) -> ModelError:
    return ModelError(f"{path} is {what}.", _POSSIBLE, do)
