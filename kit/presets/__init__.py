"""Presets: complete settings for an aim, a model family and a card, to begin with.

    preset = presets()["sdxl-style-16gb"]
    settings = preset.applied_to(settings)         what a preset does not decide stays
    diff(settings, preset.applied_to(settings))    what it would change

A preset decides how is learned; it leaves alone what is yours: folders, names, the model, prompts,
captions, the seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from kit import catalog
from kit.errors import SettingsError, nearest
from kit.reading.texts import from_toml
from kit.settings import Settings, declarations

SECTIONS = ("basic", "rates", "network", "blocks", "noise", "memory", "images", "captions")
WORDS = ("about", "family", "follows", "source")  # of the tables, that are no settings
FAMILY_CLAIMS = ("v2", "sdxl")
# In these sections, but of the user's pictures, captions, model or run.
YOURS = frozenset(
    {
        "seed", "caption_extension", "dataset_repeats", "clip_skip", "max_token_length",
        "dim_from_weights", "masked_loss", "alpha_mask", "keep_tokens", "keep_tokens_separator",
        "caption_separator", "secondary_separator", "enable_wildcard", "caption_prefix",
        "caption_suffix", "weighted_captions", "zero_terminal_snr",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """Values for every setting that decides how is learned."""

    name: str
    about: str
    values: Mapping[str, Any]
    source: str = ""  # of a recipe that others use

    def applied_to(self, settings: Settings) -> Settings:
        """These settings with the preset's values in all that it decides."""
        return settings.replace(**self.values)


@cache
def presets() -> MappingProxyType[str, Preset]:
    """All presets by name, in the order of aim, family and card; then recipes."""
    text = resources.files("kit.presets").joinpath("values.toml").read_text("utf-8")
    table = from_toml(text, "values.toml")
    made = [
        _made(table, aim, family, card)
        for aim in table["aim"]
        for family in table["family"]
        for card in table["card"]
    ]
    made += [_recipe(table, name) for name in table["recipe"]]
    return MappingProxyType({preset.name: preset for preset in made})


def preset_named(name: str) -> Preset:
    """One preset.

    Raises: SettingsError with the nearest name where there is none.
    """
    found = presets().get(name.strip().lower())
    if found is None:
        hint = nearest(name, presets())
        raise SettingsError([f"{name}: there is no such preset{hint}; `kit presets` lists them"])
    return found


def decided() -> dict[str, Any]:
    """What every preset decides, with the defaults."""
    return {
        name: declared.default
        for name, declared in declarations().items()
        if name in FAMILY_CLAIMS
        or (
            declared.section in SECTIONS
            and name not in YOURS
            and declared.type != "path"
            and declared.shapes_run  # what changes no number belongs to the machine
        )
    }


def _made(table: Mapping[str, Any], aim: str, family: str, card: str) -> Preset:
    layers = (
        table["common"],
        table["aim"][aim],
        table["family"][family],
        table["card"][card],
        table["card"][card].get(family, {}),
    )
    label = catalog.FAMILIES[family].label
    about = f"{label}, {table['card'][card]['about']}; {table['aim'][aim]['about']}"
    return Preset(f"{family}-{aim}-{card}", about, _values(layers))


def _recipe(table: Mapping[str, Any], name: str) -> Preset:
    own = table["recipe"][name]
    before = table["recipe"].get(own.get("follows"), {})
    family = own["family"]
    about = f"{catalog.FAMILIES[family].label}, {own['about']}"
    values = _values((table["common"], table["family"][family], before, own))
    return Preset(f"{family}-{name}", about, values, own["source"])


def _values(layers: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Every setting that a preset decides; later layers count more."""
    given = {
        name: value
        for layer in layers
        for name, value in layer.items()
        if name not in WORDS and not isinstance(value, Mapping)
    }
    return MappingProxyType({**decided(), **given})
