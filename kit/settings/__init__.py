"""What was asked: every setting of a run, declared once, frozen and checked.

    settings = Settings.load("run.toml")
    settings = settings.replace(network_dim=32, learning_rate=1e-4)
    settings.basic.learning_rate

Tables of a TOML file are for the reader: a setting's name is unique, as in sd-scripts, whose own
configuration files are read too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from kit.errors import SettingsError, nearest
from kit.reading.fields import kind_of
from kit.settings.basic import Basic
from kit.settings.blocks import Blocks
from kit.settings.captions import Captions
from kit.settings.extra import Extra
from kit.settings.folders import Folders
from kit.settings.hub import Hub
from kit.settings.images import Images
from kit.settings.links import without_tokens
from kit.settings.logs import Logs
from kit.settings.machine import Machine
from kit.settings.memory import Memory
from kit.settings.metadata import Metadata
from kit.settings.model import Model
from kit.settings.network import NetworkSettings
from kit.settings.noise import Noise
from kit.settings.rates import Rates
from kit.settings.samples import Samples
from kit.settings.saving import Saving
from kit.settings.setting import Declared, Section
from kit.settings.validation import Validation

__all__ = [
    "Basic", "Blocks", "Captions", "Declared", "Extra", "Folders", "Hub", "Images", "Logs",
    "Machine", "Memory", "Metadata", "Model", "NetworkSettings", "Noise", "Rates", "Samples",
    "Saving", "Section", "Settings", "Validation", "declarations",
]  # fmt: skip

# What files of other programs may carry and ours never do, with where it belongs.
SECRETS = {"huggingface_token": "HF_TOKEN", "wandb_api_key": "WANDB_API_KEY"}


class Settings(BaseModel):
    """All settings of a run, in sections."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Model = Model()
    folders: Folders = Folders()
    images: Images = Images()
    captions: Captions = Captions()
    basic: Basic = Basic()
    rates: Rates = Rates()
    network: NetworkSettings = NetworkSettings()
    blocks: Blocks = Blocks()
    noise: Noise = Noise()
    memory: Memory = Memory()
    machine: Machine = Machine()
    saving: Saving = Saving()
    logs: Logs = Logs()
    samples: Samples = Samples()
    validation: Validation = Validation()
    hub: Hub = Hub()
    metadata: Metadata = Metadata()
    extra: Extra = Extra()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a mapping, flat or in tables; names decide, tables are for the reader.

        Raises: SettingsError with every problem at once.
        """
        return cls().replace(**_flattened(values))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Settings from a TOML file.

        Raises: SettingsError where the file cannot be read or its values are wrong.
        """
        from kit.settings.files import read_toml

        return cls.of(read_toml(Path(path)))

    def replace(self, **values: Any) -> Self:
        """The same settings with some changed, by name.

        Raises: SettingsError with every problem at once.
        """
        problems, by_section = _sorted_into_sections(values)
        sections: dict[str, Section] = {}
        for name, changes in by_section.items():
            old: Section = getattr(self, name)
            try:
                sections[name] = type(old)(**{**old.model_dump(), **changes})
            except ValidationError as error:
                problems += [in_words(name, type(old), detail) for detail in error.errors()]
        if problems:
            raise SettingsError(problems)
        return self.model_copy(update=sections)

    def flat(self) -> dict[str, Any]:
        """Every setting by name."""
        return {d.name: getattr(getattr(self, d.section), d.name) for d in declarations().values()}

    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        return {
            name: value
            for name, value in self.flat().items()
            if value != declarations()[name].default
        }

    def to_toml(self, *, with_help: bool = True) -> str:
        """All settings as TOML; comments carry label, help and range."""
        from kit.settings.files import to_toml

        return to_toml(self, with_help=with_help)


@cache
def declarations() -> dict[str, Declared]:
    """Every setting's declaration by name, in the order of the form."""
    found: dict[str, Declared] = {}
    for section, info in Settings.model_fields.items():
        kind = info.annotation
        assert isinstance(kind, type) and issubclass(kind, Section)
        for declared in kind.all_declared():
            assert declared.name not in found, f"{declared.name} is declared twice"
            assert declared.section == section
            found[declared.name] = declared
    return found


def _flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in _entries(values):
        if name in flat:
            problems.append(f"{name}: given twice; keep one of them")
        flat[name] = value
    if problems:
        raise SettingsError(problems)
    return flat


def _entries(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def _sorted_into_sections(values: Mapping[str, Any]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    problems: list[str] = []
    by_section: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        declared = declarations().get(name)
        if name in SECRETS:
            problems.append(
                f"{name}: a secret is no setting, so that no file can tell it; take it out, and "
                f"give it as the environment variable {SECRETS[name]} or as the notebook's secret "
                "of that name"
            )
        elif declared is None:
            problems.append(f"{name}: no such setting{nearest(name, declarations())}")
        else:
            by_section.setdefault(declared.section, {})[name] = value
    return problems, by_section


def in_words(section: str, kind: type[Section], detail: Any) -> str:
    """One of pydantic's findings as a sentence with the setting, the value and what is possible."""
    name = str(detail["loc"][0])
    if detail["type"] == "value_error":
        return without_tokens(f"[{section}] {name}: {detail['ctx']['error']}")
    what = f"{kind_of(detail['input'])} is not {kind.declared(name).possible}"
    return without_tokens(f"[{section}] {name}: {what}")
