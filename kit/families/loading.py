"""Base models into memory: frozen, in the asked precision, from a folder or a single file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTokenizer

from kit import catalog
from kit.basemodel import ModelFile, locate_vae
from kit.basemodel.detecting import INPAINTING, PLAIN
from kit.basemodel.weight_names import Weights as WeightNames
from kit.basemodel.weight_names import choose_weights
from kit.errors import DeviceError, MissingPackage, ModelError, Unreadable, in_a_line
from kit.families import Family, Prediction, clip, target_layers
from kit.families.clip_weights import read_text_encoder, without_level
from kit.families.few_places import quicken
from kit.families.finite import check_finite
from kit.families.quantized import compress
from kit.families.resting import settle
from kit.families.sd import StableDiffusion
from kit.families.sdxl import StableDiffusionXL
from kit.families.streaming import Weights, open_weights, read_weights
from kit.reading.fields import Table
from kit.reading.texts import read_json

CONFIGS = Path(__file__).with_name("configs")
# A family is its file, a line here, a row of the catalog and a folder of configs.
FAMILIES: dict[str, type[StableDiffusion | StableDiffusionXL]] = {
    "sd1": StableDiffusion,
    "sd2": StableDiffusion,
    "sdxl": StableDiffusionXL,
}
# Where a single file has a part; a separate VAE's names begin without it.
PREFIXES = {UNet2DConditionModel: "model.diffusion_model.", AutoencoderKL: "first_stage_model."}


def load_family(
    file: ModelFile,
    *,
    predicts: Prediction,
    device: torch.device,
    dtype: torch.dtype,
    vae_dtype: torch.dtype,
    vae: str = "",
    base_precision: str = "as_mixed_precision",
    compress_text_encoders: bool = False,
    mapped: bool = True,
    rests: bool = False,
    sharded: bool = False,
) -> Family:
    """The base model, frozen, on its device; `vae` names a separate VAE that replaces its own.

    mapped: files are mapped from disk rather than read whole; rests: see `kit.families.resting`;
    sharded: the U-Net stays off the device, which is to get a part of it later.

    Raises: ModelError where weights are missing, damaged or of another shape.
    """
    separate = locate_vae(vae) if vae else None
    if separate is None and not file.has_vae:
        raise ModelError(
            f"{file.path} holds no VAE.",
            "Some models leave it out because it is the same for all of their family.",
            "Name one in the vae setting, or choose a version of the model that holds it.",
        )
    read = _read_folder if file.is_folder else _read_file
    with _quiet(), _readable(file.path):
        unet, own_vae, encoders = read(
            file, dtype=dtype, vae_dtype=vae_dtype, with_vae=separate is None, mapped=mapped
        )
    if separate:
        with _quiet(), _readable(separate):
            own_vae = _read_separate_vae(separate, file, vae_dtype, mapped=mapped)
    assert own_vae is not None, "read from the model or from its own file"
    parts = [(unet, dtype), (own_vae, vae_dtype), *((encoder, dtype) for encoder in encoders)]
    paths = [*_paths_of_parts(file, separate)]
    for (part, _), path in zip(parts, paths, strict=True):
        _check_complete(part.module, file.path)
        if catalog.BASE_PRECISIONS[base_precision].code:  # later its weights are bits
            check_finite(part.module, path)
            part.weights.release()
        part.module.requires_grad_(False).eval()
    modules = [encoder.module for encoder in encoders]
    packed = modules if compress_text_encoders else []
    compress_base(unet.module, packed, base_precision, device, dtype)
    for (part, precision), path in zip(parts, paths, strict=True):
        may = rests and not catalog.BASE_PRECISIONS[base_precision].code
        place = torch.device("cpu") if sharded and part is unet else device
        settle(part.module, part.weights, place, precision, rests=may)
        check_finite(part.module, path)
        part.weights.release()
    if device.type == "cpu" and dtype is torch.float32:
        quicken(unet.module)
    return _assemble(file, predicts, unet.module, own_vae.module, modules)


def _paths_of_parts(file: ModelFile, vae: Path | None) -> Iterator[Path]:
    """The file, or the folder of several, that U-Net, VAE and text encoders were read from."""
    encoders = (part.name for part in FAMILIES[file.family].encoder_parts(file.family))
    for name in ("unet", "vae", *encoders):
        if vae and name == "vae":
            yield vae
        elif file.is_folder:
            names = _weights_of(file.path / name).names
            yield file.path / name / (names[0] if len(names) == 1 else "")
        else:
            yield file.path


def compress_base(
    unet: nn.Module,
    encoders: list[Any],
    base_precision: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> None:
    """Keep the layers that adapters sit at in few bits.

    dtype: what their weights are rounded to before; None: nothing.

    Raises: DeviceError where the device cannot; MissingPackage.
    """
    row = catalog.BASE_PRECISIONS[base_precision]
    if not row.code:
        return
    found: list[nn.Linear | nn.Conv2d] = [
        module for _, module, _ in target_layers.unet_layers(unet)
    ]
    found += [
        x.module for encoder in encoders for x in target_layers.text_encoder_layers(encoder, "te")
    ]
    pack = catalog.load(row.code, row.needs)
    pack_conv = catalog.load(row.convolutions or row.code, row.needs)
    try:
        pack(torch.ones(64, 64, device=device)).decoded(torch.float32)
        compress(found, pack, pack_conv, device, dtype)
    except torch.OutOfMemoryError:
        raise
    except ImportError as error:
        raise MissingPackage(
            f"{row.setting} needs the package {row.needs}: {error}",
            do=f"Install it with: pip install {row.needs}, or keep the base as it is.",
        ) from error
    except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        raise DeviceError(
            f"{row.setting} does not work on this device ({device}): {error}",
            "The base can also be kept in the precision that it is computed with.",
            "Turn it off, or choose int8.",
        ) from error


def _assemble(
    file: ModelFile,
    predicts: Prediction,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    encoders: list[Any],
) -> Family:
    kind = FAMILIES[file.family]
    tokenizers = [
        _tokenizer(file, part, encoder)
        for part, encoder in zip(kind.encoder_parts(file.family), encoders, strict=True)
    ]
    return kind.of_parts(
        file.family, predicts, file.zero_terminal_snr, unet, vae, encoders, tokenizers
    )


def _tokenizer(file: ModelFile, part: clip.EncoderPart, text_encoder: Any) -> clip.Tokenizer:
    """CLIP's own tokenizer, unless the text encoder knows other tokens than CLIP's."""
    if text_encoder.config.vocab_size == clip.VOCABULARY:
        return clip.packaged_tokenizer(part.pad, splits_pad=part.splits_pad)
    folder = file.path / part.tokenizer
    if not (file.is_folder and folder.is_dir()):
        raise ModelError(
            f"{file.path} knows {text_encoder.config.vocab_size} tokens, but has no "
            f"{part.tokenizer}/.",
            f"Without a tokenizer of its own, a model must use CLIP's {clip.VOCABULARY} tokens.",
            f"Put the model's {part.tokenizer} folder beside its other parts.",
        )
    with _quiet(), _readable(folder):
        inner = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return clip.own_tokenizer(inner)


@dataclass(frozen=True)
class _Part:
    """A part whose weights are still as the file has them, and where they lie."""

    module: Any
    weights: Weights


def _read_folder(
    file: ModelFile, *, dtype: torch.dtype, vae_dtype: torch.dtype, with_vae: bool, mapped: bool
) -> tuple[_Part, _Part | None, list[_Part]]:
    unet = _read_part(UNet2DConditionModel, file.path / "unet", dtype, mapped=mapped)
    vae = None
    if with_vae:
        vae = _read_part(AutoencoderKL, file.path / "vae", vae_dtype, mapped=mapped)
    encoders = [
        _read_part(part.kind, file.path / part.name, dtype, mapped=mapped)
        for part in FAMILIES[file.family].encoder_parts(file.family)
    ]
    return unet, vae, encoders


def _weights_of(folder: Path) -> WeightNames:
    weights = choose_weights(file.name for file in folder.iterdir())
    assert weights is not None, f"{folder} was checked by detect()"
    return weights


def _read_part(kind: Any, folder: Path, dtype: torch.dtype, *, mapped: bool) -> _Part:
    """A part out of a diffusers folder; dtype: where it must be copied anyway."""
    names = _weights_of(folder)
    if names.is_safetensors:
        files = [folder / name for name in names.names if not name.endswith(".json")]
        weights = read_weights(files, mapped=mapped)
        module = _empty(kind, folder)
        wanted = module.state_dict()
        # Otherwise it is an older layout, which its library knows, or a fault, which that tells.
        named = weights.tensors | without_level(weights.tensors)
        if _fits(named, wanted):
            module.load_state_dict({name: named[name] for name in wanted}, assign=True)
            return _Part(module, weights)
    return _Part(_from_folder(kind, folder, names, dtype, mapped=mapped), Weights({}))


def _fits(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return all(n in tensors and tensors[n].shape == weight.shape for n, weight in wanted.items())


def _empty(kind: Any, folder: Path) -> Any:
    """A part without weights, by the settings beside them."""
    with init_empty_weights(include_buffers=False):
        if issubclass(kind, UNet2DConditionModel | AutoencoderKL):
            return kind.from_config(kind.load_config(folder))
        return kind(CLIPTextConfig.from_pretrained(folder))


def _from_folder(
    kind: Any, folder: Path, weights: WeightNames, dtype: torch.dtype, *, mapped: bool
) -> Any:
    """A part by its library's own reader; fp16 or pickled weights where there are no others."""
    is_text = not issubclass(kind, UNet2DConditionModel | AutoencoderKL)
    options: dict[str, Any] = {"dtype": dtype} if is_text else {"torch_dtype": dtype}
    with warnings.catch_warnings():
        if not (mapped or is_text):
            options["disable_mmap"] = True
            warnings.simplefilter("ignore", ResourceWarning)  # diffusers leaves closing to Python
        module, found = kind.from_pretrained(
            folder,
            variant=weights.variant,
            use_safetensors=weights.is_safetensors,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    missing = sorted(name for name in found["missing_keys"] if "position_ids" not in name)
    if missing:
        raise _unfit(folder, f"{len(missing)} weights are missing, such as {missing[0]}")
    return module


def _read_file(
    file: ModelFile, *, dtype: torch.dtype, vae_dtype: torch.dtype, with_vae: bool, mapped: bool
) -> tuple[_Part, _Part | None, list[_Part]]:
    weights, configs = open_weights(file.path, mapped=mapped), config_folder(file.family)
    channels = {"in_channels": INPAINTING if file.is_inpainting else PLAIN}
    unet = _read_converted(UNet2DConditionModel, weights, configs / "unet", dtype, **channels)
    vae = _read_converted(AutoencoderKL, weights, configs / "vae", vae_dtype) if with_vae else None
    encoders = [
        read_text_encoder(
            part.kind, config=configs / part.name, weights=weights.tensors, prefix=part.prefix
        )
        for part in FAMILIES[file.family].encoder_parts(file.family)
    ]
    return unet, vae, [_Part(encoder, weights) for encoder in encoders]


def config_folder(family: str) -> Path:
    """The packaged settings of a single file's parts, which the file itself does not hold."""
    return CONFIGS / family


def _read_converted(
    kind: Any, weights: Weights, config: Path, dtype: torch.dtype, **changes: Any
) -> _Part:
    """A part out of a single file, renamed by diffusers; `changes` of its packaged settings."""
    module = kind.from_single_file(
        dict(weights.tensors),  # a copy: diffusers takes the names it has read out of it
        config=str(config),
        torch_dtype=weights.precision(PREFIXES[kind]) or dtype,
        local_files_only=True,
        **changes,
    )
    return _Part(module, weights)


def _read_separate_vae(path: Path, file: ModelFile, dtype: torch.dtype, *, mapped: bool) -> _Part:
    """A VAE from a folder (itself or its part `vae`), or from a file in either layout.

    Raises: ModelError where its latents are scaled otherwise than the model's own.
    """
    base = file.path / "vae" if file.is_folder else config_folder(file.family) / "vae"
    if path.is_file():
        return _read_converted(AutoencoderKL, open_weights(path, mapped=mapped), base, dtype)
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    if not (folder / "config.json").is_file() or not choose_weights(
        f.name for f in folder.iterdir()
    ):
        raise ModelError(
            f"vae = {path} is no diffusers VAE: it lacks config.json or weights.",
            "A VAE is a folder of both, a .safetensors or a .pt file.",
            "Choose another folder or file.",
        )
    expected, said = _scaling(base), _scaling(folder)
    if said is not None and said != expected:
        raise ModelError(
            f"vae = {path} scales its latents by {said}, the base model by {expected}.",
            "0.18215 belongs to Stable Diffusion 1.x and 2.x, 0.13025 to XL.",
            "Choose a VAE of the base model's family.",
        )
    read = _read_part(AutoencoderKL, folder, dtype, mapped=mapped)
    read.module.register_to_config(scaling_factor=expected)
    return read


def _scaling(folder: Path) -> float | None:
    """The factor a VAE's settings name; None in old ones that leave it to their model."""
    try:
        told = Table(read_json(folder / "config.json"), folder / "config.json")
        return told.number("scaling_factor") if "scaling_factor" in told else None
    except Unreadable as error:
        raise _unfit(folder, f"{error.what} {error.why}") from error


def _check_complete(module: nn.Module, path: Path) -> None:
    empty = [name for name, weight in module.named_parameters() if weight.is_meta]
    if empty:
        raise _unfit(path, f"{len(empty)} weights are missing, such as {empty[0]}")


def _unfit(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} does not fit its family: {why}.",
        "A file that is damaged, or a model with fewer layers than usual, looks like this.",
        "Fetch the model again, or choose another.",
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what the libraries raise about a bad file into a ModelError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        SafetensorError,
        UnpicklingError,
    ) as error:
        raise _unfit(path, in_a_line(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the libraries' load reports and bars; they cry wolf, and we check for ourselves."""
    loggers = (diffusers.utils.logging, transformers.utils.logging)
    levels = [logger.get_verbosity() for logger in loggers]
    bars = [logger.is_progress_bar_enabled() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
        logger.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level, bar in zip(loggers, levels, bars, strict=True):
            logger.set_verbosity(level)
            if bar:
                logger.enable_progress_bar()
