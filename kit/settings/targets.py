"""LyCORIS' presets: which layers of the base model get an adapter, by name or from a TOML file.

The library's own presets name classes that diffusers' models do not have and paths from the root,
so several of them adapt nothing or crash; here they mean what their names say. In a TOML file, a
class is found under its old names too, and a name fits the end of a layer's path.
Source: https://github.com/KohakuBlueleaf/LyCORIS (names and keys of presets).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kit.errors import Unreadable
from kit.reading import paths
from kit.reading.texts import read_toml

# Names that a preset may use -> the class in diffusers and transformers.
CLASSES = {
    "CrossAttention": "Attention",
    "SelfAttention": "Attention",
    "CLIPSdpaAttention": "CLIPAttention",
}
TRANSFORMER = ("Transformer2DModel",)
CONVOLUTIONS = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
ENCODERS = ("CLIPAttention", "CLIPMLP")
KEYS = {
    "enable_conv": bool,
    "unet_target_module": list,
    "unet_target_name": list,
    "text_encoder_target_module": list,
    "text_encoder_target_name": list,
    "exclude_name": list,
    "use_fnmatch": bool,
}


@dataclass(frozen=True)
class Preset:
    """Which layers are adapted: those in blocks of these classes, and those with these names."""

    unet: tuple[str, ...] = ()
    text_encoder: tuple[str, ...] = ()
    unet_names: tuple[str, ...] = ()
    text_encoder_names: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    convolutions: bool = True  # 3x3 ones; a 1x1 convolution is a linear layer
    wildcards: bool = False  # names with * and ?, else regular expressions
    on_input: tuple[str, ...] | None = None  # iA3: the names whose inputs are scaled, not outputs

    def takes(self, path: str, blocks: Iterable[str], *, is_unet: bool, is_conv3x3: bool) -> bool:
        """A layer gets an adapter; blocks: the classes of what it lies in."""
        if (is_conv3x3 and not self.convolutions) or self._fits(path, self.excluded):
            return False
        classes, names = (
            (self.unet, self.unet_names)
            if is_unet
            else (self.text_encoder, self.text_encoder_names)
        )
        wanted = {CLASSES.get(name, name) for name in classes}
        return bool(wanted & set(blocks)) or self._fits(path, names)

    def scales_inputs(self, path: str, otherwise: bool) -> bool:
        """Whether iA3 scales what goes into this layer."""
        return otherwise if self.on_input is None else self._fits(path, self.on_input)

    def _fits(self, path: str, names: Iterable[str]) -> bool:
        if self.wildcards:
            return any(fnmatchcase(path, name) for name in names)
        return any(re.fullmatch(rf"(?:.*\.)?(?:{name})", path) for name in names)


PRESETS: dict[str, Preset] = {
    "full": Preset((*TRANSFORMER, *CONVOLUTIONS), ENCODERS),
    "full-lin": Preset((*TRANSFORMER, *CONVOLUTIONS), ENCODERS, convolutions=False),
    "attn-mlp": Preset(TRANSFORMER, ENCODERS, convolutions=False),
    "attn-only": Preset(("Attention",), ("CLIPAttention",), convolutions=False),
    "unet-only": Preset((*TRANSFORMER, *CONVOLUTIONS)),
    "unet-transformer-only": Preset(TRANSFORMER, convolutions=False),
    "unet-convblock-only": Preset(CONVOLUTIONS),
    "ia3": Preset(
        unet_names=(r"to_k", r"to_v", r"ff\.net\.2"),
        text_encoder_names=(r"k_proj", r"v_proj", r"mlp\.fc2"),
        convolutions=False,
        on_input=(r"ff\.net\.2", r"mlp\.fc2"),
    ),
}


def preset_of(name: str) -> Preset:
    """A preset by name, or that of a TOML file.

    Raises: ValueError where there is none, or the file asks for what cannot be done.
    """
    name = name.strip()
    if name in PRESETS:
        return PRESETS[name]
    path = Path() if paths.why_no_path(name) else paths.path_of(name)
    if not paths.is_file(path):
        names = ", ".join(PRESETS)
        raise ValueError(f"{name!r} is neither a file nor a preset; the presets are {names}")
    try:
        asked = read_toml(path)
    except Unreadable as error:
        raise ValueError(f"{path} {error.why}; give a preset's name or a TOML file") from error
    return _from_table(path, asked)


def _from_table(path: Path, asked: Mapping[str, Any]) -> Preset:
    for key, value in asked.items():
        if key not in KEYS:
            raise ValueError(f"{path}: {key} is not supported; what is: {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]):
            raise ValueError(f"{path}: {key} must be a {KEYS[key].__name__}")
    wildcards = asked.get("use_fnmatch", False)
    full, tuples = PRESETS["full"], {key: _texts(path, key, asked) for key in KEYS}
    for name in () if wildcards else (n for key in tuples if "name" in key for n in tuples[key]):
        try:
            re.compile(name)
        except re.error as error:
            raise ValueError(f"{path}: {name!r} is no regular expression: {error}") from error
    # What a file leaves out is as in the preset full, as LyCORIS does it.
    return Preset(
        tuples["unet_target_module"] if "unet_target_module" in asked else full.unet,
        tuples["text_encoder_target_module"]
        if "text_encoder_target_module" in asked
        else full.text_encoder,
        tuples["unet_target_name"],
        tuples["text_encoder_target_name"],
        tuples["exclude_name"],
        asked.get("enable_conv", True),
        wildcards,
    )


def _texts(path: Path, key: str, asked: Mapping[str, Any]) -> tuple[str, ...]:
    values = asked.get(key, [])
    values = values if isinstance(values, list) else []
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{path}: {key} must be a list of texts")
    return tuple(values)
