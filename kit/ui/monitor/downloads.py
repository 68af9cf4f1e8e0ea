"""Files that a run has saved, as a person takes them away: a link, a button on Colab, or a path.

A relative address inside a widget counts from JupyterLab's page, not from the notebook. The whole
one is known from what the server writes about itself for its kernels. A server gives out what lies
below its root and no symbolic link: a file elsewhere gets a hard link there, which takes no room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import ipywidgets as widgets

from kit.hosts import host
from kit.reading.paths import resolved
from kit.ui.jupyter_server import server_root, told_by_server
from kit.ui.look import escaped

SHELF = "lora-kit-downloads"  # below the server's root: hard links to files that lie elsewhere


def link(path: str) -> str:
    """The path as HTML: a link that downloads it where the server gives it out, else plain text."""
    text = f"<code>{escaped(path)}</code>"
    address = address_of(Path(path))
    if address is None:
        return text
    return f"<a {_attributes(address, Path(path).name)}>{text}</a>"


def download(path: Path, words: str, *, is_first: bool = False, name: str = "") -> str:
    """A button of HTML that downloads the file, or, where the page cannot, its path to copy.

    On Colab the buttons of `buttons` stand beside it. name: the file's name at the other end.
    """
    address = address_of(path) or shelved(path)
    if address is None:
        return path_to_copy(path)
    css = "kit-button is-first" if is_first else "kit-button"
    return f"<a class='{css}' {_attributes(address, name or path.name)}>{escaped(words)}</a>"


def path_to_copy(path: Path | str) -> str:
    """A click selects all of it."""
    return f"<code class='kit-copy' title='A click selects it'>{escaped(path)}</code>"


def _attributes(address: str, name: str) -> str:
    return f"href='{escaped(address)}?download=1' download='{escaped(name)}' target='_blank'"


def address_of(path: Path, servers: Path | None = None) -> str | None:
    """The address of a file below the root of the Jupyter server that started this kernel.

    None elsewhere: on Colab or in VS Code, for a file outside of that root, and for one in a folder
    whose name begins with a dot, which the server hides.
    """
    server, root = told_by_server(servers), server_root(servers)
    if root is None or not path.is_file():
        return None
    try:
        inside = resolved(path).relative_to(root)
    except ValueError:
        return None
    if any(part.startswith(".") for part in inside.parts):
        return None
    return f"{server.get('base_url', '/')}files/{quote(inside.as_posix())}"


def shelved(path: Path, servers: Path | None = None) -> str | None:
    """The address of a hard link to the file below the server's root.

    None where there is no server, or none can be made: on another disk, or without the right to.
    What an earlier link still holds of a file that is gone is let go.
    """
    root = server_root(servers)
    if root is None or not path.is_file():
        return None
    source = resolved(path)
    folder = root / SHELF / hashlib.sha256(str(source.parent).encode()).hexdigest()[:8]
    placed = folder / source.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not placed.exists() or not placed.samefile(source):
            placed.unlink(missing_ok=True)
            placed.hardlink_to(source)
        for other in folder.iterdir():
            if other.stat().st_nlink == 1:
                other.unlink()
    except OSError:
        return None
    return address_of(placed, servers)


def buttons(
    paths: list[str], download: Callable[[str], object] | None = None
) -> list[widgets.Button]:
    """On Colab, a button for each of these files; elsewhere none.

    download: what a button does; None means Colab's own.
    """
    if host().name != "colab":
        return []
    return [_button(path, download or _colab_download) for path in paths]


def _button(path: str, download: Callable[[str], object]) -> widgets.Button:
    button = widgets.Button(
        description=f"Download {Path(path).name}",
        icon="download",
        button_style="primary",
        layout=widgets.Layout(width="auto"),
    )
    button.on_click(lambda _: download(path))
    return button


def _colab_download(path: str) -> None:
    from google.colab import files

    files.download(path)
