"""LoRA types: where their code is, the settings that they read, who reads their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit.catalog import readers
from kit.catalog.readers import MODIFIERS, ReadBy


@dataclass(frozen=True)
class LoraType:
    """A LoRA type: this row is all that the package knows of it beside its code.

    Its adapter is made with `arguments`, by the settings' names: keyword arguments of the class,
    and of the function of its shapes as far as that has them.
    """

    code: str
    network_module: str  # ss_network_module
    adapts_convolutions: bool
    uses: tuple[str, ...]  # every setting that it reads
    shapes: str = "kit.catalog.lora_shapes:lora"  # which tensors it keeps beside a layer
    algorithm: str = ""  # the `algo` of network_args, where a module has several
    needs_even_blocks: bool = False  # its rank is the side of blocks that not every layer has
    read_by: ReadBy = readers.EVERYWHERE  # which programs read its files

    @property
    def is_plain_lora(self) -> bool:
        """Its files hold nothing but down and up, as kohya's."""
        return self.code.endswith((":Lora", ":LoraFa", ":DyLora"))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The settings that one adapter is made with; the others are the whole network's."""
        return tuple(name for name in self.uses if name not in _OF_THE_NETWORK)


_FILE_SETTINGS = ("network_weights", "dim_from_weights")
_DROPOUTS = ("network_dropout", "rank_dropout", "module_dropout")
# LoRA+ needs two factors, of which one starts as zeros.
_TWO_FACTORS = (
    "loraplus_lr_ratio",
    "loraplus_unet_lr_ratio",
    "loraplus_text_encoder_lr_ratio",
)
_SIZE = ("network_dim", "network_alpha")
_RANK = (*_SIZE, "rs_lora", *_TWO_FACTORS)
_CONVOLUTIONS = ("conv_dim", "conv_alpha")
# Which layers get an adapter, of which rank and alpha, what becomes of all together.
_OF_THE_NETWORK = frozenset(
    {
        *_SIZE,
        *_CONVOLUTIONS,
        *_TWO_FACTORS,
        *_FILE_SETTINGS,
        "scale_weight_norms",
        "LyCORIS_preset",
        "train_norm",
    }
)
_LORA_SETTINGS = (*_RANK, *_DROPOUTS, "scale_weight_norms", *_FILE_SETTINGS)
_LYCORIS_SETTINGS = (*_DROPOUTS, "rank_dropout_scale", *_FILE_SETTINGS)
_FACTORED = (*_RANK, *_CONVOLUTIONS, *_LYCORIS_SETTINGS, "scale_weight_norms")
_ROTATION = ("network_dim", "conv_dim", *_LYCORIS_SETTINGS, "constraint", "rescaled")
_PRODUCT = ("use_tucker", "use_scalar", "dora_wd", "wd_on_output")


def _lycoris(code: str, algorithm: str, shapes: str, *uses: str, **traits: Any) -> LoraType:
    return LoraType(
        f"kit.adapters.{code}",
        "lycoris.kohya",
        True,
        (*uses, "LyCORIS_preset"),
        f"kit.catalog.lora_shapes:{shapes}",
        algorithm,
        **traits,
    )


LORA_TYPES: dict[str, LoraType] = {
    "Standard": LoraType("kit.adapters.lora:Lora", "networks.lora", False, _LORA_SETTINGS),
    "Kohya LoCon": LoraType(
        "kit.adapters.lora:Lora", "networks.lora", True, (*_LORA_SETTINGS, *_CONVOLUTIONS)
    ),
    "Kohya DyLoRA": LoraType(
        "kit.adapters.dylora:DyLora",
        "networks.dylora",
        True,
        (*_LORA_SETTINGS, *_CONVOLUTIONS, "unit"),
    ),
    "Kohya LoHa": LoraType(
        "kit.adapters.loha:Loha",
        "networks.loha",
        True,
        (*_FACTORED, "use_tucker"),
        "kit.catalog.lora_shapes:loha",
        read_by=readers.LYCORIS,
    ),
    "Kohya LoKr": LoraType(
        "kit.adapters.lokr:Lokr",
        "networks.lokr",
        True,
        (*_FACTORED, "use_tucker", "factor"),
        "kit.catalog.lora_shapes:lokr",
        read_by=readers.LYCORIS,
    ),
    "LoRA-FA": LoraType("kit.adapters.lora:LoraFa", "networks.lora_fa", False, _LORA_SETTINGS),
    "LyCORIS/LoCon": _lycoris(
        "locon:Locon", "locon", "lora", *_FACTORED, *_PRODUCT, "bypass_mode", "train_norm"
    ),
    "LyCORIS/LoHa": _lycoris(
        "loha:Loha", "loha", "loha", *_FACTORED, *_PRODUCT, "train_norm", read_by=readers.LYCORIS
    ),
    "LyCORIS/LoKr": _lycoris(
        "lokr:Lokr",
        "lokr",
        "lokr",
        *_FACTORED,
        *_PRODUCT,
        "factor",
        "decompose_both",
        "train_norm",
        read_by=readers.LYCORIS,
    ),
    "LyCORIS/iA3": _lycoris(
        "direct:Ia3", "ia3", "ia3", *_LYCORIS_SETTINGS, "train_on_input", read_by=readers.IA3
    ),
    "LyCORIS/DyLoRA": _lycoris(
        "dylora:DyLora", "dylora", "lora", *_LORA_SETTINGS, *_CONVOLUTIONS, "unit", "train_norm"
    ),
    "LyCORIS/GLoRA": _lycoris(
        "glora:Glora", "glora", "glora", *_FACTORED, "train_norm", read_by=readers.GLORA
    ),
    "LyCORIS/Diag-OFT": _lycoris(
        "oft:DiagOft", "diag-oft", "oft", *_ROTATION, "train_norm", read_by=readers.ROTATION
    ),
    "LyCORIS/BOFT": _lycoris(
        "oft:Boft",
        "boft",
        "boft",
        *_ROTATION,
        "train_norm",
        needs_even_blocks=True,
        read_by=readers.ROTATION,
    ),
    "LyCORIS/Native Fine-Tuning": _lycoris(
        "direct:Full", "full", "full", *_LYCORIS_SETTINGS, "train_norm", read_by=readers.FULL
    ),
}


def read_by(values: Mapping[str, Any]) -> ReadBy:
    """Which programs will read a LoRA that is trained with these settings, by name."""
    name = values["LoRA_type"]
    row = LORA_TYPES[name]
    rows = [
        each.read_by
        for each in MODIFIERS
        if each.setting in row.uses
        and values.get(each.setting)
        and (not each.kinds or name in each.kinds)
        and (not each.beside or values.get(each.beside))
    ]
    if "network_alpha" in row.uses and _mixes_alphas(values):
        rows.append(readers.MIXED_ALPHAS)
    return row.read_by.with_(*rows)


def _mixes_alphas(values: Mapping[str, Any]) -> bool:
    """Blocks have alphas of their own; rsLoRA stores the root of each rank in its alpha."""
    dims = _numbers(values.get("block_dims")) - {0.0} if values.get("rs_lora") else set[float]()
    return len(_numbers(values.get("block_alphas"))) > 1 or len(dims) > 1


def _numbers(text: str | None) -> set[float]:
    """Those of a list of blocks; none where it cannot be read, which a rule tells."""
    try:
        return {float(part.strip() or 0) for part in (text or "").split(",")}
    except ValueError:
        return set()
