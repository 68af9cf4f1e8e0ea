"""The notebook's first cell: where it runs, with what, and where the results go.

Google Drive is asked for only where it was chosen; without it, results on Colab are lost with the
session, and it says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from kit import hosts
from kit.hosts import Gpu, Host, host

NAMES = {
    "colab": "Google Colab",
    "kaggle": "Kaggle",
    "runpod": "Runpod",
    "vscode": "VS Code",
    "plain": "this machine",
}
DRIVE = Path("/content/drive")
SECRETS = ("HF_TOKEN", "CIVITAI_TOKEN")
SELFTEST = "To test this machine first, run  !python -m kit selftest  in a new cell: half a minute."


def welcome(*, drive: bool = False) -> None:
    """Print a few lines, and fetch the notebook's secrets, which only a cell can ask for.

    drive: keep results on Google Drive, which asks for permission; without effect elsewhere.
    """
    here = host()
    if drive and here.name == "colab":
        if problem := connect_drive():
            print(problem)
        here = host()
    hosts.ask_for_secrets(*SECRETS)
    print("\n".join([*lines(here), SELFTEST]))


def connect_drive(mount: Callable[[str], object] | None = None) -> str:
    """Ask for Google Drive; returns why there is none, or "". Results lie there afterwards."""
    if host().slow is not None:
        return ""
    try:
        if mount is None:
            from google.colab import drive

            mount = drive.mount
        mount(str(DRIVE))
    except ImportError:
        return "Google Drive can be connected on Google Colab only."
    except Exception as error:  # whatever Colab's dialog raises, one can train without Drive
        return f"Google Drive is not connected ({error}). Try again to connect it."
    return ""


def lines(here: Host, *, gpu: Callable[[], Gpu | None] = hosts.gpu) -> Iterator[str]:
    """Host, GPU, free space, and where results go."""
    yield f"Runs on {NAMES[here.name]}."
    found = gpu()
    yield (
        f"GPU: {found.name}, {found.megabytes / 1000:.0f} GB."
        if found
        else "No NVIDIA GPU: the example trains in minutes, real models need a GPU."
    )
    place = here.output_folder.absolute()
    free = shutil.disk_usage(_existing(place)).free / 1e9
    yield f"Results go to {place} ({free:.0f} GB free there)."
    if not here.persistent:
        kept = "download what you want to keep"
        kept += ", or tick KEEP_RESULTS_ON_DRIVE and run this cell again" * (here.name == "colab")
        yield f"They are lost when the session ends: {kept}."


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())
