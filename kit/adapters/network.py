"""All adapters of a run: where they sit, what they learn from, how they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit import catalog
from kit.adapters.base import Adapter
from kit.adapters.from_file import Entry, entries_of, misfit, start_from
from kit.adapters.norms import Norm
from kit.adapters.ops import weight_shape
from kit.adapters.param_groups import Group, PartRates, grouped
from kit.adapters.product import MAGNITUDE
from kit.adapters.restoring import unsaid
from kit.catalog.lora_shapes import on_output
from kit.errors import SettingsError
from kit.families import Family, Layer
from kit.families import Norm as NormLayer
from kit.families.kohya_names import block_number
from kit.settings import NetworkSettings
from kit.settings.effective import reads
from kit.settings.targets import PRESETS, Preset, preset_of
from kit.settings.unet_blocks import BlockPlan


@dataclass(frozen=True)
class Size:
    """Rank and alpha of one adapter."""

    rank: int
    alpha: float


class Network(nn.Module):
    """Adapters by their kohya names, hooked to the layers that they change."""

    def __init__(self, adapters: dict[str, Adapter], layers: dict[str, Layer | NormLayer]) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict(adapters)
        self._layers = layers
        self._hooks = [
            layers[name].module.register_forward_hook(adapter.add_to)
            for name, adapter in adapters.items()
        ]

    def named(self) -> Iterator[tuple[str, Adapter]]:
        """Every adapter with its kohya name."""
        for name, adapter in self.adapters.items():
            assert isinstance(adapter, Adapter)
            yield name, adapter

    @property
    def count(self) -> int:
        """Weights that are saved, alphas left out."""
        return sum(weight.numel() for weight in self.parameters())

    @property
    def draws(self) -> bool:
        """Some adapter draws random numbers while training."""
        return any(adapter.draws for _, adapter in self.named())

    @property
    def decides_on_host(self) -> bool:
        """Some adapter draws which calls a step is made of."""
        return any(adapter.decides_on_host for _, adapter in self.named())

    @property
    def skips(self) -> bool:
        """Some adapter is left out of a step now and then, and gets no gradient in it."""
        return any(adapter.module_dropout for _, adapter in self.named())

    def groups(self, rates: PartRates) -> tuple[Group, ...]:
        """Text encoders first, then the U-Net; what has no rate is frozen and in no group."""
        return grouped(self.named(), self._layers, rates)

    def stop_text_encoders(self) -> bool:
        """Let the text encoders' adapters stay as they are from now on; they go on acting.

        Returns whether some had learned until now.
        """
        adapters = self.beside_text_encoders()
        learned = any(weight.requires_grad for a in adapters for weight in a.parameters())
        for adapter in adapters:
            adapter.requires_grad_(False)
            for weight in adapter.parameters():
                weight.grad = None  # an optimizer leaves a weight without gradient alone
        return learned

    def beside_text_encoders(self) -> tuple[nn.Module, ...]:
        """The adapters of all text encoders."""
        return tuple(a for name, a in self.named() if self._layers[name].part != "unet")

    def detach_hooks(self) -> None:
        """Leave the base model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for _, adapter in self.named():
            adapter.unfold()

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """No dropouts inside the block, for sample pictures."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def set_multiplier(self, multiplier: float) -> None:
        """How strongly the LoRA acts: 1 as trained, 0 not at all."""
        for _, adapter in self.named():
            adapter.multiplier = multiplier

    def limit_norms(self, longest: float) -> int:
        """Scale back every learning change that is longer; returns how many were."""
        learning = [a for _, a in self.named() if any(w.requires_grad for w in a.learning())]
        if not learning:
            return 0
        with torch.no_grad():  # one wait for a device; SDXL has 722 lengths
            lengths = torch.stack([adapter.length().float() for adapter in learning]).tolist()
        pairs = zip(learning, lengths, strict=True)
        return sum(adapter.limit_norm(longest, length)[1] for adapter, length in pairs)

    def tensors(self) -> dict[str, Tensor]:
        """What a LoRA file holds, e.g. `<name>.alpha`, `.lora_down.weight`, `.lora_up.weight`."""
        return {
            f"{name}.{key}": tensor.detach()
            for name, adapter in self.named()
            for key, tensor in adapter.tensors().items()
        }

    def unsaid(self) -> dict[str, str]:
        """Metadata of a LoRA file: what its tensors do not say; see `kit.adapters.restoring`."""
        return unsaid({name: adapter.unsaid() for name, adapter in self.named()})


def attach(
    settings: NetworkSettings,
    family: Family,
    *,
    learns: frozenset[str],
    seed: int,
    start: dict[str, Tensor] | None = None,
    blocks: BlockPlan | None = None,
) -> Network:
    """Put an adapter beside every layer that the LoRA type adapts.

    learns: the parts that have a learning rate, of "unet", "te", "te1", "te2"; start: tensors of
    network_weights. A part that does not learn but lies in that file is kept, frozen.
    blocks: ranks and rates of single U-Net blocks; a block without either gets no adapter.

    Raises: LoraFileError where the file does not fit.
    """
    kind: type[Adapter] = catalog.load(catalog.LORA_TYPES[settings.LoRA_type].code)
    files = entries_of(start or {}, (kind, Norm) if _trains_norms(settings) else (kind,))
    blocks = blocks or BlockPlan()
    preset = _preset(settings)
    sizes = {
        layer.name: size
        for layer in family.layers()
        if (layer.part in learns or layer.name in files)
        and (settings.dim_from_weights or _takes(preset, layer))
        and (size := _size_of(settings, layer, files, blocks)) is not None
    }
    layers = {layer.name: layer for layer in family.layers() if layer.name in sizes}
    made = {
        name: make_adapter(settings, layers[name], sizes[name], files.get(name), preset)
        for name in sizes
    }
    norms = {
        norm.name: norm
        for norm in (family.norms() if _trains_norms(settings) else ())
        if (norm.part in learns or norm.name in files)
        and (norm.name in files if settings.dim_from_weights else _takes(preset, norm))
        and blocks.weight(block_number(norm.name))
    }
    made |= {name: _made_norm(settings, norm) for name, norm in norms.items()}
    network = Network(made, {**layers, **norms})
    for name, adapter in network.named():
        adapter.start(seed, "lora", name)
    if start:
        start_from(dict(network.named()), files, settings.LoRA_type)
    return network


def parts_of(family: Family) -> frozenset[str]:
    """The parts that the family's layers belong to."""
    return frozenset(layer.part for layer in family.layers())


def make_adapter(
    settings: NetworkSettings, layer: Layer, size: Size, entry: Entry | None, preset: Preset
) -> Adapter:
    """An adapter with the settings that its type uses; of the file's shape if asked for."""
    row = catalog.LORA_TYPES[settings.LoRA_type]
    options: dict[str, Any] = {name: getattr(settings, name) for name in row.arguments}
    if "train_on_input" in options:  # of some layers the preset decides it
        options["train_on_input"] = preset.scales_inputs(layer.path, settings.train_on_input)
    kind: type[Any] = catalog.load(row.code)
    if entry:
        options |= _of_file(settings, kind, layer, entry)
        if settings.dim_from_weights:
            options.pop("rs_lora", None)  # the file's alpha is the strength already
    try:
        adapter: Adapter = kind(layer.module, rank=size.rank, alpha=size.alpha, **options)
    except ValueError as error:
        raise SettingsError(
            [f"[network] network_dim: LoRA_type = {settings.LoRA_type}: {layer.name}: {error}"]
        ) from error
    return adapter.to(layer.module.weight.device)


def _of_file(
    settings: NetworkSettings, kind: type[Adapter], layer: Layer, entry: Entry
) -> dict[str, Any]:
    """What the file decides of an adapter: all, or only the axis of its DoRA."""
    try:
        if settings.dim_from_weights:
            if not kind.reads(entry.shapes):
                raise ValueError(f"a layer cannot have {', '.join(entry.shapes)}")
            return {"found": kind.kept_of(layer.module, entry.shapes), **entry.options}
        magnitudes = entry.shapes.get(MAGNITUDE)
        if magnitudes is None or not settings.dora_wd:
            return {}
        return {"wd_on_output": on_output(magnitudes, weight_shape(layer.module))}
    except ValueError as error:
        raise misfit([f"{layer.name}: {error}"]) from error


def _trains_norms(network: NetworkSettings) -> bool:
    return network.train_norm and reads(network, "train_norm")


def _made_norm(network: NetworkSettings, norm: NormLayer) -> Adapter:
    adapter = Norm(
        norm.module,
        rank_dropout=network.rank_dropout,
        rank_dropout_scale=network.rank_dropout_scale,
        module_dropout=network.module_dropout,
    )
    return adapter.to(norm.module.weight.device)


def _preset(network: NetworkSettings) -> Preset:
    """The chosen one, for types that have presets."""
    has_presets = reads(network, "LyCORIS_preset")
    try:
        return preset_of(network.LyCORIS_preset) if has_presets else PRESETS["full"]
    except ValueError as error:
        raise SettingsError([f"[network] LyCORIS_preset: {error}"]) from error


def _takes(preset: Preset, layer: Layer | NormLayer) -> bool:
    is_unet = layer.part == "unet"
    return preset.takes(layer.path, layer.blocks, is_unet=is_unet, is_conv3x3=layer.is_conv3x3)


def _size_of(
    settings: NetworkSettings, layer: Layer, files: dict[str, Entry], blocks: BlockPlan
) -> Size | None:
    """Rank and alpha for a layer; None where it gets no adapter."""
    block = block_number(layer.name)
    if settings.dim_from_weights:
        entry = files.get(layer.name)
        return Size(entry.rank, entry.alpha) if entry and blocks.weight(block) else None
    convolutions = catalog.LORA_TYPES[settings.LoRA_type].adapts_convolutions
    if not layer.in_transformer and not convolutions:
        return None
    size = blocks.size(block, is_conv3x3=layer.is_conv3x3, network=settings)
    return Size(*size) if size else None


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights lie."""
    return next(module.parameters()).device
