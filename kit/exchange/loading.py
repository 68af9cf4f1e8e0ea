"""Settings from whatever there is: our TOML, the GUI's JSON, sd-scripts' files, a LoRA, a text.

    settings, report = load_any("old.json")

What it is, is told by its content. Our own files are read strictly: an unknown name is an error.
Foreign ones are translated, and the report has a line for each of their keys. What is for another
model family, or is no file of settings, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit.basemodel.headers import read_header
from kit.errors import SettingsError, Unreadable
from kit.exchange import command_line, from_lora, gui_json, made_here, repeated, sd_scripts
from kit.exchange.additional import with_additional
from kit.exchange.repeated import Overruled
from kit.exchange.report import Line, Report, Verdict, shown
from kit.reading import paths
from kit.reading.texts import from_json, from_toml, read_text
from kit.settings import Settings, declarations
from kit.settings.rules import problems

MADE_BY_THE_RUN = ("output_dir", "logging_dir")
CONFIG_FILE = "config_file"
OTHERS = "LoRA Kit, the kohya_ss GUI and sd-scripts"
A_SLIP = 2  # so few names, all unknown, are misspelled; more are of something else


def load_any(source: str | Path, base: Settings | None = None) -> tuple[Settings, Report]:
    """Settings from a file, or from the text of one, with what became of each key.

    base: what stays where a foreign file says nothing, such as what stands in a form; None means
    the defaults. A whole recipe (sd-scripts' arguments, a LoRA of ours) leaves of it the places and
    what shapes no number of a training. Our own files say everything, and leave nothing.

    Raises: SettingsError where it cannot be read, or our own file holds what is no setting.
    """
    if isinstance(source, str) and _is_text(source):
        return _settled(*_from_text(source, "the text", Path(), base), base)
    path = _path(str(source))
    if path.suffix.lower() == ".safetensors":
        return _settled(*_from_lora(path, base), base)
    return _settled(*_from_text(_read(path), path.name, path.parent, base), base)


def _settled(settings: Settings, report: Report, base: Settings | None) -> tuple[Settings, Report]:
    """With what the plan's checks say; without any change where the file is none for us."""
    why = next((line.told for line in report.lines if line.is_elsewhere), report.elsewhere)
    if not why and len(report.of(Verdict.UNKNOWN)) == len(report.lines) > A_SLIP:
        why = f"it holds none of the settings that {OTHERS} know"
    if why:
        return base or Settings(), replace(report, elsewhere=why)
    counted, wrong, _ = with_additional(settings)
    return settings, replace(report, refused=(*wrong, *problems(counted)))


def _is_text(source: str) -> bool:
    """Text rather than the name of a file."""
    return "\n" in source or source.lstrip().startswith("{") or command_line.looks_like_one(source)


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except Unreadable as error:
        if "UTF-8" in error.why:
            words = "is no text; of files of weights only a LoRA's .safetensors can be read"
            raise SettingsError([f"{path}: {words}"]) from error
        raise SettingsError(
            [
                f"{path}: {error.why}; give a .toml or .json file with settings, a LoRA's "
                ".safetensors, or a text file with a command line"
            ]
        ) from error


def _path(text: str) -> Path:
    try:
        return paths.path_of(text)
    except Unreadable as error:
        raise SettingsError([error.found]) from error


def _from_lora(path: Path, base: Settings | None) -> tuple[Settings, Report]:
    if not paths.is_file(path):
        raise SettingsError([f"{path}: there is no such file"])
    header = read_header(path)
    settings, lines = from_lora.from_metadata(header.metadata, base)
    if found := made_here.settings_beside(path, from_lora.recipe_in(header.metadata)):
        settings, place = found
        settings, lines = from_lora.with_axis(settings, lines, header.shapes)
        return settings, replace(
            _report(path.name, settings, lines), notes=(f"its paths are those of {place}",)
        )
    settings, lines = from_lora.with_axis(settings, lines, header.shapes)
    return settings, _report(path.name, settings, lines)


def _from_text(
    text: str, name: str, folder: Path, base: Settings | None
) -> tuple[Settings, Report]:
    if text.lstrip().startswith("{"):
        return _from_json(text, name, base)
    values = _as_toml(text)
    if values is not None:
        return _from_toml(values, name, base)
    if _is_json_list(text):
        return base or Settings(), Report(name, (), elsewhere="it holds a list, and no settings")
    if command_line.looks_like_one(text):
        arguments = command_line.arguments_in(text)
        inner = config_file(arguments, folder)
        overruled = [*repeated.of_command(text), *repeated.of_file_beside(inner, arguments)]
        entries = {**sd_scripts.entries_of(inner), **sd_scripts.entries_of(arguments)}
        return _from_arguments(entries, f"{name} (a command line)", base, overruled)
    try:
        from_toml(text, name)
    except Unreadable as error:
        raise SettingsError([f"{name}: {error.why}"]) from error
    raise SettingsError([f"{name}: holds no settings"])


def _as_toml(text: str) -> dict[str, Any] | None:
    try:
        return from_toml(text, "the text") or None
    except Unreadable:
        return None


def _is_json_list(text: str) -> bool:
    try:
        return isinstance(from_json(text, "the text"), list)
    except Unreadable:
        return False


def _from_json(text: str, name: str, base: Settings | None) -> tuple[Settings, Report]:
    try:
        values = from_json(text, name)
    except Unreadable as error:
        raise SettingsError([f"{name}: {error.why}"]) from error
    if "network_module" in values and "LoRA_type" not in values:
        twice = repeated.of_arguments(values)
        entries = sd_scripts.entries_of(values)
        return _from_arguments(entries, f"{name} (sd-scripts)", base, twice)
    settings, lines = gui_json.from_gui(values, base)
    return settings, _report(f"{name} (kohya_ss GUI)", settings, lines)


def _from_toml(
    values: Mapping[str, Any], name: str, base: Settings | None
) -> tuple[Settings, Report]:
    """Ours, or sd-scripts', which always names the network's module."""
    if "datasets" in values:
        raise SettingsError(
            [f"{name}: describes images, not a training; it belongs in dataset_config"]
        )
    entries = sd_scripts.entries_of(values)
    if "network_module" in entries:
        twice = repeated.of_arguments(values)
        return _from_arguments(entries, f"{name} (sd-scripts)", base, twice)
    if not set(entries) & set(declarations()) and len(entries) > A_SLIP:
        why = f"it holds none of the settings that {OTHERS} know"
        return base or Settings(), Report(name, (), elsewhere=why)
    settings = Settings.of(values)
    lines = [
        Line(key, shown(value), Verdict.TAKEN, changes={key: value})
        for key, value in entries.items()
    ]
    return settings, Report(
        name, tuple(lines), {}, missing_paths(settings.flat()), is_foreign=False
    )


def _from_arguments(
    entries: Mapping[str, Any],
    name: str,
    base: Settings | None,
    overruled: Sequence[Overruled] = (),
) -> tuple[Settings, Report]:
    settings, lines, assumed = sd_scripts.from_sd_scripts(entries, assumes_defaults=True, base=base)
    lines += repeated.lines_of(overruled)
    return settings, _report(name, settings, lines, assumed=assumed, strict=True)


def config_file(entries: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What the file holds that --config_file names; none where it is not given.

    Raises: SettingsError where there is no such file.
    """
    named = entries.get(CONFIG_FILE)
    if not named:
        return {}
    if not isinstance(named, str):
        raise SettingsError([f"--{CONFIG_FILE} has no file behind it; name one, or take it out"])
    path = _path(named)
    path = path if path.is_absolute() or paths.is_there(path) else folder / path
    if not paths.is_there(path) and path.name and paths.is_there(path.with_suffix(".toml")):
        path = path.with_suffix(".toml")
    return _as_toml(_read(path)) or {}


def _report(
    name: str,
    settings: Settings,
    lines: list[Line],
    *,
    assumed: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> Report:
    return Report(name, tuple(lines), assumed or {}, missing_paths(settings.flat()), strict)


def missing_paths(values: Mapping[str, Any]) -> dict[str, str]:
    """Paths that the settings name and that are not here; names on the Hub are not looked up."""
    return {
        name: value
        for name, value in values.items()
        if declarations()[name].type == "path"
        and name not in MADE_BY_THE_RUN
        and value
        and not _is_there(name, str(value))
    }


def _is_there(name: str, value: str) -> bool:
    if not paths.why_no_path(value) and paths.is_there(paths.path_of(value)):
        return True
    may_be_on_hub = declarations()[name].section == "model"
    parts = value.split("/")
    return may_be_on_hub and len(parts) == 2 and all(parts) and "\\" not in value
