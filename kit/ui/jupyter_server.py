"""The Jupyter server that started this kernel, as far as it writes about itself for its kernels."""

from __future__ import annotations

import os
from pathlib import Path

from kit.errors import Unreadable
from kit.reading.fields import Table
from kit.reading.paths import path_of, resolved, why_no_path
from kit.reading.texts import read_json

TOLD = ("root_dir", "notebook_dir", "base_url")  # never its token


def told_by_server(folder: Path | None = None) -> dict[str, str]:
    """What it says of its folder and its address; nothing where there is none (Colab, VS Code).

    folder: where such files lie; None means where Jupyter puts them.
    """
    number = os.environ.get("JPY_PARENT_PID", "")
    if folder is None:
        from jupyter_core.paths import jupyter_runtime_dir

        folder = Path(jupyter_runtime_dir())
    for name in (f"jpserver-{number}.json", f"nbserver-{number}.json"):
        try:
            told = Table(read_json(folder / name), name).values
        except Unreadable:
            continue
        return {key: str(told[key]) for key in TOLD if told.get(key)}
    return {}


def server_root(folder: Path | None = None) -> Path | None:
    """The folder below which the server reads and writes files for the page."""
    told = told_by_server(folder)
    root = told.get("root_dir") or told.get("notebook_dir")
    return None if not root or why_no_path(root) else resolved(path_of(root))
