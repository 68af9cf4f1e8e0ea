"""Where the kit runs (Colab, Kaggle, Runpod, VS Code, a plain machine), and where files live there.

Only signs that a host sets for itself count. That /content or /workspace exists says nothing: many
container images have such folders.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from kit.reading.paths import path_of, why_no_path

HostName: TypeAlias = Literal["colab", "kaggle", "runpod", "vscode", "plain"]


@dataclass(frozen=True)
class Host:
    """A kind of machine and its usual places.

    data_folder: where training images are looked for first.
    output_folder: where runs go by default.
    persistent: what lies in output_folder is still there when the session is over.
    slow: a mounted storage that is kept but slow (Google Drive), if any; scratch: a fast folder
    that is lost with the session, to work in instead.
    """

    name: HostName
    data_folder: Path
    output_folder: Path
    persistent: bool
    slow: Path | None = None
    scratch: Path | None = None

    def is_slow(self, path: str | Path) -> bool:
        """The path lies on the slow storage."""
        if self.slow is None or why_no_path(str(path)):
            return False
        return path_of(path).absolute().is_relative_to(self.slow)


def host(
    *,
    environment: Mapping[str, str] | None = None,
    modules: Container[str] | None = None,
    is_mounted: Callable[[Path], bool] = Path.is_mount,
) -> Host:
    """The machine this process runs on; the arguments stand in for the real one in tests.

    Kaggle is asked first because its images may carry google.colab. VS Code is asked last:
    connected to a rented machine it is only the window, and the machine decides where files live.
    """
    environment = os.environ if environment is None else environment
    modules = sys.modules if modules is None else modules
    if _has_any(environment, "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE"):
        return _kaggle(environment)
    if _has_any(environment, "COLAB_RELEASE_TAG", "COLAB_GPU") or "google.colab" in modules:
        return _colab(is_mounted)
    if _has_any(environment, "RUNPOD_POD_ID"):
        return _runpod(is_mounted)
    here = Path()
    is_vscode = _has_any(environment, "VSCODE_PID", "VSCODE_CWD")
    return Host("vscode" if is_vscode else "plain", here, here / "output", persistent=True)


def _has_any(environment: Mapping[str, str], *names: str) -> bool:
    return any(environment.get(name) for name in names)


def _kaggle(environment: Mapping[str, str]) -> Host:
    # A session that a person edits in loses /kaggle/working; "Save & Run All" keeps it.
    is_batch = environment.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch"
    return Host("kaggle", Path("/kaggle/input"), Path("/kaggle/working"), persistent=is_batch)


def _colab(is_mounted: Callable[[Path], bool]) -> Host:
    drive = Path("/content/drive")
    if is_mounted(drive):
        loras, scratch = drive / "MyDrive" / "loras", Path("/content/lora-kit-work")
        return Host("colab", Path("/content"), loras, persistent=True, slow=drive, scratch=scratch)
    return Host("colab", Path("/content"), Path("/content/output"), persistent=False)


def _runpod(is_mounted: Callable[[Path], bool]) -> Host:
    # A pod may be rented without a volume; then /workspace is an ordinary folder of the container.
    workspace = Path("/workspace")
    return Host("runpod", workspace, workspace / "output", persistent=is_mounted(workspace))


def cache_folder(here: Host | None = None) -> Path:
    """Where downloaded models and this machine's measured speeds lie; not made here.

    LORA_KIT_CACHE names another place. A rented machine's volume outlives its home.
    """
    here = here or host()
    if named := os.environ.get("LORA_KIT_CACHE", "").strip():
        return path_of(named, "LORA_KIT_CACHE")
    if here.name == "runpod" and here.persistent:
        return Path("/workspace/.cache/lora-kit")
    home = os.environ.get("XDG_CACHE_HOME", "").strip() or "~/.cache"
    return path_of(home, "XDG_CACHE_HOME") / "lora-kit"


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU."""

    name: str
    megabytes: int


@lru_cache(maxsize=1)  # the plan asks at every change, and the answer takes a while
def gpus() -> tuple[Gpu, ...]:
    """What nvidia-smi tells, without torch, in its order; none without a GPU of that make.

    It tells all of the machine, also those that CUDA_VISIBLE_DEVICES hides.
    """
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        lines = [line.rpartition(",") for line in told.stdout.strip().splitlines()]
        return tuple(Gpu(name.strip(), int(int(size) * 2**20 / 1e6)) for name, _, size in lines)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def gpu() -> Gpu | None:
    """The first NVIDIA GPU; None where there is none."""
    return next(iter(gpus()), None)


def processor() -> str:
    """What trains where there is no NVIDIA GPU, to know the same machine again."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple GPU"
    return f"CPU, {os.cpu_count()} cores"


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that the process may still take: the machine's, or its container's where that is less.

    Where the machine does not tell (Windows), 8 GB are believed; where it tells only what it has
    (macOS), half of that. root: where /proc and /sys are, for tests.
    """
    free = [_free_of_machine(root)]
    for limit, used in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            most = int((root / limit).read_text())  # "max" where there is no limit
            taken = int((root / used).read_text())
            stat = (root / limit).with_name("memory.stat").read_text().split()
        except (OSError, ValueError):
            continue
        # Files that were read count as used, and are let go when the memory is needed.
        files = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
        free.append(max(0, most - taken + files))
    return min(free)


def held_memory() -> int:
    """Bytes that this process holds by now, which its next training may use again."""
    import psutil  # type: ignore[import-untyped]

    return int(psutil.Process().memory_info().rss)


def _free_of_machine(root: Path) -> int:
    try:
        words = (root / "proc/meminfo").read_text().split()
        return int(words[words.index("MemAvailable:") + 1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 8 * 1024**3


def secret(name: str) -> str:
    """A secret by its name, from the environment or from the notebook's own store; "" without one.

    The store asks the browser and may wait seconds for its answer: `ask_for_secrets` does so from
    the cell's own thread, before the work. What is returned belongs into no file, no message and
    no event.
    """
    if value := os.environ.get(name, "").strip():
        return value
    if name in _asked:
        return _asked[name]
    store = _STORES.get(host().name)
    try:
        return (store(name) or "").strip() if store else ""
    except Exception:  # not granted, not there, no answer: each has an exception of its own
        return ""


def ask_for_secrets(*names: str) -> None:
    """Fetch these from the notebook's store now, and remember in memory what it gave."""
    for name in names:
        _asked.pop(name, None)
        _asked[name] = secret(name)


def known_secrets() -> dict[str, str]:
    """What the notebook's store gave, for the environment of a process that cannot ask it."""
    return {name: value for name, value in _asked.items() if value}


_asked: dict[str, str] = {}


def _colab_secret(name: str) -> str | None:
    module: Any = importlib.import_module("google.colab.userdata")
    value: str | None = module.get(name)
    return value


def _kaggle_secret(name: str) -> str | None:
    module: Any = importlib.import_module("kaggle_secrets")
    value: str | None = module.UserSecretsClient().get_secret(name)
    return value


_STORES: dict[HostName, Callable[[str], str | None]] = {
    "colab": _colab_secret,
    "kaggle": _kaggle_secret,
}
