"""The notebook's first cell: where it runs, with what, and where the results go.

On Colab it asks for Google Drive; without it, results are lost with the session, and it says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from kit.hosts import Host, host

NAMES = {
    "colab": "Google Colab",
    "kaggle": "Kaggle",
    "runpod": "Runpod",
    "vscode": "VS Code",
    "plain": "this machine",
}
DRIVE = Path("/content/drive")


def welcome() -> None:
    """Mount Drive where there is one, and print four lines."""
    here = host()
    if here.name == "colab" and here.slow is None:
        problem = mounted_drive()
        here = host()
        if problem:
            print(problem)
    print("\n".join(lines(here)))


def mounted_drive(mount: Callable[[str], object] | None = None) -> str:
    """Ask for Google Drive; returns why there is none, or ""."""
    try:
        if mount is None:
            from google.colab import drive

            mount = drive.mount
        mount(str(DRIVE))
    except Exception as error:  # whatever Colab's dialog raises, one can train without Drive
        return f"Google Drive is not connected ({error}). Run this cell again to connect it."
    return ""


def lines(here: Host, *, gpu: Callable[[], str] | None = None) -> Iterator[str]:
    """Host, GPU, free space, and where results go."""
    yield f"Runs on {NAMES[here.name]}."
    found = (gpu or _gpu)()
    yield (
        f"GPU: {found}."
        if found
        else "No NVIDIA GPU: the example trains in minutes, real models need a GPU."
    )
    place = here.output_folder.absolute()
    free = shutil.disk_usage(_existing(place)).free / 1e9
    yield f"Results go to {place} ({free:.0f} GB free there)."
    if not here.persistent:
        yield "They are lost when the session ends: download what you want to keep."


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _gpu() -> str:
    """Name and memory of the first GPU, without torch; "" where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True, env=os.environ
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip().splitlines()[0] if told.stdout.strip() else ""
