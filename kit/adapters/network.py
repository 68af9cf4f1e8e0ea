"""All adapters of a run: where they sit, what they learn from, how they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kit import catalog
from kit.adapters.base import Adapter
from kit.adapters.groups import Group, PartRates, grouped
from kit.errors import LoraFileError
from kit.families import Family, Layer
from kit.families.names import block_number
from kit.settings import Network as NetworkSettings
from kit.settings.rules_blocks import BlockPlan


@dataclass(frozen=True)
class Size:
    """Rank and alpha of one adapter."""

    rank: int
    alpha: float


class Network(nn.Module):
    """Adapters by their kohya names, hooked to the layers that they change."""

    def __init__(self, adapters: dict[str, Adapter], layers: dict[str, Layer]) -> None:
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

    def groups(self, rates: PartRates) -> tuple[Group, ...]:
        """Text encoders first, then the U-Net; what has no rate is frozen and in no group."""
        return grouped(self.named(), self._layers, rates)

    def stop_text_encoders(self) -> None:
        """Let the text encoders' adapters stay as they are from now on; they go on acting."""
        for adapter in self.beside_text_encoders():
            adapter.requires_grad_(False)
            for weight in adapter.parameters():
                weight.grad = None  # an optimizer leaves a weight without gradient alone

    def beside_text_encoders(self) -> tuple[nn.Module, ...]:
        """The adapters of all text encoders."""
        return tuple(a for name, a in self.named() if self._layers[name].part != "unet")

    def detach_hooks(self) -> None:
        """Leave the base model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @contextmanager
    def resting(self) -> Iterator[None]:
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
        learning = (a for _, a in self.named() if any(w.requires_grad for w in a.learning()))
        return sum(adapter.limit_norm(longest)[1] for adapter in learning)

    def tensors(self) -> dict[str, Tensor]:
        """What a LoRA file holds, e.g. `<name>.alpha`, `.lora_down.weight`, `.lora_up.weight`."""
        return {
            f"{name}.{key}": tensor.detach()
            for name, adapter in self.named()
            for key, tensor in adapter.tensors().items()
        }


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
    files = _by_module(start or {})
    blocks = blocks or BlockPlan()
    sizes = {
        layer.name: size
        for layer in family.layers()
        if (layer.part in learns or layer.name in files)
        and (size := _size_of(settings, layer, files, blocks)) is not None
    }
    layers = {layer.name: layer for layer in family.layers() if layer.name in sizes}
    network = Network({name: _made(settings, layers[name], sizes[name]) for name in sizes}, layers)
    for name, adapter in network.named():
        adapter.start(seed, "lora", name)
    if start:
        _start_from(network, files, settings)
    return network


def parts_of(family: Family) -> frozenset[str]:
    """The parts that the family's layers belong to."""
    return frozenset(layer.part for layer in family.layers())


def _made(settings: NetworkSettings, layer: Layer, size: Size) -> Adapter:
    kind = catalog.load(catalog.KINDS[settings.LoRA_type].code)
    adapter: Adapter = kind(
        layer.module,
        rank=size.rank,
        alpha=size.alpha,
        dropout=settings.network_dropout,
        rank_dropout=settings.rank_dropout,
        module_dropout=settings.module_dropout,
    )
    return adapter.to(layer.module.weight.device)


def _size_of(
    settings: NetworkSettings, layer: Layer, files: dict[str, _Entry], blocks: BlockPlan
) -> Size | None:
    """Rank and alpha for a layer; None where it gets no adapter."""
    block = block_number(layer.name)
    if settings.dim_from_weights:
        entry = files.get(layer.name)
        return Size(entry.rank, entry.alpha) if entry and blocks.weight(block) else None
    convolutions = catalog.KINDS[settings.LoRA_type].adapts_convolutions
    if not layer.in_transformer and not convolutions:
        return None
    size = blocks.size(block, is_conv3x3=layer.is_conv3x3, network=settings)
    return Size(*size) if size else None


@dataclass(frozen=True)
class _Entry:
    """One module of a LoRA file."""

    up: Tensor
    down: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def _by_module(tensors: dict[str, Tensor]) -> dict[str, _Entry]:
    """A LoRA file's modules by name; a missing alpha means alpha = rank."""
    roles: dict[str, set[str]] = {}
    for key in tensors:
        name, _, role = key.partition(".")
        roles.setdefault(name, set()).add(role)
    entries = {}
    for name, found in roles.items():
        up, down = tensors.get(f"{name}.lora_up.weight"), tensors.get(f"{name}.lora_down.weight")
        # What else a module may hold, such as dora_scale or lora_mid, changes what it does.
        if up is None or down is None or found - {"alpha", "lora_up.weight", "lora_down.weight"}:
            raise LoraFileError(
                f"network_weights: the module {name} holds {', '.join(sorted(found))}, "
                "not lora_up and lora_down alone.",
                "Files of the types Standard and Kohya LoCon can be continued.",
                "Choose a file that was trained with one of them.",
            )
        alpha = tensors.get(f"{name}.alpha")
        entries[name] = _Entry(
            up, down, float(alpha) if alpha is not None else float(down.shape[0])
        )
    return entries


def _start_from(network: Network, files: dict[str, _Entry], settings: NetworkSettings) -> None:
    own = dict(network.named())
    if unknown := [name for name in files if name not in own]:
        raise LoraFileError(
            f"network_weights holds {len(unknown)} modules that LoRA_type = {settings.LoRA_type} "
            "has no place "
            f"for on this base model, e.g. {unknown[0]}.",
            "A file fits the family and the LoRA type it was trained with.",
            "Choose Kohya LoCon for a file with convolutions, or a base model of the file's "
            "family.",
        )
    misfits = []
    for name, entry in files.items():
        try:
            own[name].take(
                {
                    "lora_up.weight": entry.up.float(),
                    "lora_down.weight": entry.down.float(),
                    "alpha": torch.tensor(entry.alpha),
                }
            )
        except ValueError as error:
            misfits.append(f"{name}: {error}")
    if misfits:
        raise LoraFileError(
            f"network_weights does not fit: {misfits[0]}"
            + (f", and {len(misfits) - 1} more." if len(misfits) > 1 else "."),
            "Rank and layers must be those of the file.",
            "Turn dim_from_weights on, or set network_dim (and conv_dim) to the file's rank.",
        )


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights lie."""
    return next(module.parameters()).device
