"""Links to files that a run has saved: JupyterLab's own addresses; a button on Colab.

A relative address inside a widget counts from JupyterLab's page, not from the notebook. The whole
one is known from what the server writes about itself for its kernels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ipywidgets as widgets

from kit.hosts import host
from kit.ui.look import escaped

TOLD = ("root_dir", "notebook_dir", "base_url")  # never its token
SHOWN = 5  # the newest files get a button


def link(path: str) -> str:
    """The path as HTML: a link that downloads it where the server gives it out, else plain text."""
    text = f"<code>{escaped(path)}</code>"
    address = address_of(Path(path))
    if address is None:
        return text
    name = escaped(Path(path).name)
    return f"<a href='{escaped(address)}' download='{name}' target='_blank'>{text}</a>"


def address_of(path: Path, servers: Path | None = None) -> str | None:
    """The address of a file below the root of the Jupyter server that started this kernel.

    None elsewhere: on Colab or in VS Code, or for a file outside of that root.
    """
    server = _server(servers)
    root = server.get("root_dir") or server.get("notebook_dir")
    if not root or not path.is_file():
        return None
    try:
        inside = path.resolve().relative_to(Path(root).resolve())
    except ValueError:
        return None
    return f"{server.get('base_url', '/')}files/{quote(inside.as_posix())}"


def buttons(
    paths: list[str], download: Callable[[str], object] | None = None
) -> list[widgets.Button]:
    """On Colab, a button for each of the newest files; elsewhere none.

    download: what a button does; None means Colab's own.
    """
    if host().name != "colab":
        return []
    return [_button(path, download or _colab_download) for path in paths[-SHOWN:]]


def _button(path: str, download: Callable[[str], object]) -> widgets.Button:
    button = widgets.Button(
        description=f"Download {Path(path).name}",
        icon="download",
        layout=widgets.Layout(width="auto"),
    )
    button.on_click(lambda _: download(path))
    return button


def _colab_download(path: str) -> None:
    from google.colab import files

    files.download(path)


def _server(folder: Path | None) -> dict[str, Any]:
    """What the server that started this kernel says of itself; nothing where there is none."""
    number = os.environ.get("JPY_PARENT_PID", "")
    if folder is None:
        from jupyter_core.paths import jupyter_runtime_dir

        folder = Path(jupyter_runtime_dir())
    for name in (f"jpserver-{number}.json", f"nbserver-{number}.json"):
        try:
            told: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        return {
            key: told.get(key) for key in ("root_dir", "notebook_dir", "base_url") if told.get(key)
        }
    return {}
