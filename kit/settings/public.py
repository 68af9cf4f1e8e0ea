"""What may be told to others about a run's settings: no secrets, and no private paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.settings import Settings, declarations

PROMPT_FILE = re.compile(r"[^\n]*\.(?:txt|toml|json)", re.IGNORECASE)
SECRET = re.compile(r"(?:^|_)(?:key|token|password|secret)$")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)+")


def public_settings(settings: Settings) -> dict[str, Any]:
    """The settings that differ from their defaults, without secrets and without private paths."""
    return _public(settings.changed())


def all_public_settings(settings: Settings) -> dict[str, Any]:
    """Every setting, without secrets and without private paths."""
    return _public(settings.flat())


def _public(values: Mapping[str, Any]) -> dict[str, Any]:
    public: dict[str, Any] = {}
    for name, value in values.items():
        declared = declarations()[name]
        if SECRET.search(name):
            continue
        if value and declared.type == "path":
            value = public_name(value) if declared.section == "model" else last_part(value)
        elif declared.type == "text" and PROMPT_FILE.fullmatch(value.strip()):
            value = last_part(value)
        public[name] = value
    return public


def public_name(name: str) -> str:
    """What may be told of a model's place: a Hub id whole, of a path or address its end."""
    name = name.strip().strip("\"'")
    on_web = re.match(r"https?://([^/?#]*)/?([^?#]*)", name)  # what follows a ? may be a token
    if on_web:
        return on_web[2] if on_web[1] in ("huggingface.co", "hf.co") else last_part(on_web[2])
    is_id = HUB_ID.fullmatch(name) and not Path(name).exists()
    return name if is_id else last_part(name)


def last_part(path: str) -> str:
    """The name of a file or folder, on either system's paths."""
    return re.split(r"[/\\]", path.strip().rstrip("/\\"))[-1]
