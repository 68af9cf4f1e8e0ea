"""Copies of the product with one fault each, and the tests that should notice it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tests.mutants.listed import Mutation

ROOT = Path(__file__).parents[2]
COPIED = ("kit", "tests", "pyproject.toml", "README.md", "shared")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "browser", "results", ".*cache*")
LONGEST = 600  # seconds for the tests of one fault; then it counts as not noticed
BY_HAND = ("tests/effects/test_losses_by_hand.py", "tests/effects/test_noise_by_hand.py")
STOPS = "tests/adapters/test_param_groups.py"
COMMANDS = "tests/exchange/test_recorded_commands.py"
EFFECT = "tests/effects/test_every_setting.py::test_the_setting_has_its_effect[{}]"
PLANS = ("tests/planning/test_planning.py", "tests/optim/test_making.py")
# Module -> the test files that matter, the fast ones first.
MATTERS: dict[str, tuple[str, ...]] = {
    "kit/catalog/lr_schedules.py": ("tests/optim/test_making.py", COMMANDS),
    "kit/planning/steps.py": (*PLANS, STOPS, COMMANDS, "tests/training/test_loop.py"),
    "kit/planning/value.py": (*PLANS, STOPS, COMMANDS, "tests/training/test_loop.py"),
    "kit/planning/deciding.py": (*PLANS, STOPS, COMMANDS, "tests/training/test_loop.py"),
    "kit/diffusion/losses.py": (
        "tests/diffusion/test_losses.py",
        BY_HAND[0],
        COMMANDS,
        "tests/families/test_v_prediction.py",
    ),
    "kit/diffusion/noise.py": ("tests/diffusion/test_noise.py", *BY_HAND),
    "kit/training/batches.py": (
        "tests/training/test_batches.py",
        *BY_HAND,
        "tests/training/test_loop.py",
    ),
    "kit/training/step.py": (
        BY_HAND[0],
        STOPS,
        "tests/training/test_gathering.py",
        "tests/effects/test_shares.py",
        COMMANDS,
        "tests/families/test_v_prediction.py",
        "tests/training/test_requests.py",
        "tests/training/test_loop.py",
    ),
    "kit/training/preparation.py": (
        "tests/effects/test_shares.py",
        COMMANDS,
        "tests/adapters/test_param_groups.py",
        "tests/training/test_loop.py",
    ),
    "kit/training/caches.py": (COMMANDS, "tests/training/test_requests.py"),
    "kit/training/sampling.py": ("tests/training/test_sampling.py", "tests/effects/test_shares.py"),
    "kit/optim/averaging.py": ("tests/optim/test_making.py", "tests/catalog/test_optimizers.py"),
    "kit/optim/making.py": ("tests/optim/test_making.py", "tests/catalog/test_optimizers.py"),
    "kit/training/checkpoint.py": ("tests/training/test_loop.py",),
    "kit/training/lora_saving.py": (
        EFFECT.format("save_precision"),
        "tests/lorafile/test_metadata.py",
        "tests/training/test_loop.py",
    ),
    "kit/lorafile/tensors.py": ("tests/lorafile/test_tensors.py",),
    "kit/adapters/ops.py": ("tests/adapters/test_every_type.py",),
    "kit/adapters/lora.py": (
        "tests/adapters/test_lora.py",
        "tests/effects/test_shares.py",
        "tests/adapters/test_network.py",
    ),
    "kit/adapters/base.py": (
        "tests/adapters/test_lora.py",
        "tests/effects/test_shares.py",
        "tests/adapters/test_every_type.py",
        "tests/adapters/test_network.py",
    ),
    "kit/adapters/network.py": ("tests/effects/test_shares.py", "tests/adapters/test_network.py"),
    "kit/dataset/batches.py": ("tests/dataset/test_batches.py", "tests/training/test_batches.py"),
    "kit/dataset/buckets.py": (
        "tests/dataset/test_buckets.py",
        "tests/training/test_batches.py",
        "tests/families/test_sdxl.py",
    ),
    "kit/dataset/captions.py": (
        "tests/dataset/test_captions.py",
        "tests/effects/test_noise_and_captions.py",
    ),
    "kit/dataset/layout.py": (
        EFFECT.format("bucket_reso_steps"),
        "tests/dataset/test_batches.py",
        "tests/dataset/test_buckets.py",
        "tests/planning/test_planning.py",
        "tests/training/test_batches.py",
    ),
    "kit/dataset/masks.py": (
        "tests/dataset/test_masks.py",
        "tests/caching/test_mask_latents.py",
        BY_HAND[0],
    ),
    "kit/dataset/pixels.py": (
        "tests/dataset/test_recolouring.py",
        "tests/dataset/test_pixels.py",
        "tests/caching/test_mask_latents.py",
        "tests/training/test_batches.py",
    ),
    "kit/settings/effective.py": (
        "tests/settings",
        "tests/adapters/test_param_groups.py",
        "tests/effects/test_noise_and_captions.py",
        *PLANS,
        COMMANDS,
        "tests/catalog/test_optimizers.py",
        *BY_HAND,
    ),
    "kit/settings/rules/basic.py": (
        "tests/settings/rules/test_checks.py",
        "tests/settings/test_effective.py",
        *PLANS,
    ),
    "kit/settings/rules/noise.py": ("tests/settings/rules/test_checks.py",),
    "kit/settings/rules/rates.py": ("tests/settings/rules/test_checks.py",),
    "kit/settings/unet_blocks.py": (
        "tests/settings/rules/test_blocks.py",
        "tests/settings/rules/test_checks.py",
        "tests/adapters/test_param_groups.py",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What the tests made of a fault."""

    mutation: Mutation
    killed_by: str  # the test, or "" where none noticed


class WrongText(Exception):
    """A listed text does not stand once in its file: the list must be mended."""


def mutated(text: str, mutation: Mutation) -> str:
    """The file's text with the fault in it.

    Raises: WrongText where the text is not there exactly once.
    """
    if mutation.at >= 0:
        end = mutation.at + len(mutation.before)
        return text[: mutation.at] + mutation.after + text[end:]
    if (count := text.count(mutation.before)) != 1:
        raise WrongText(f"{mutation.name}: found {count} times in {mutation.file}")
    return text.replace(mutation.before, mutation.after)


def copied(folder: Path) -> Path:
    """A tree of its own, which faults may be written into."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=LEFT_OUT, symlinks=True)
        elif source.exists():
            shutil.copy2(source, folder / name)
    return folder


def tests_fail(tree: Path, files: tuple[str, ...], *, longest: float = LONGEST) -> str:
    """The first failing test of these files, "" where all pass."""
    there = [file for file in dict.fromkeys(files) if (tree / file.partition("::")[0]).exists()]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no"]
    try:
        run = subprocess.run(
            [*command, "-m", "not gpu and not browser", *there],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=longest, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"no end within {longest:.0f} seconds: {tree}", flush=True)
        return ""
    if run.returncode == 0:
        return ""
    told = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return told[0] if told else f"pytest ended with {run.returncode}: {run.stderr[-200:]}"


def judged(tree: Path, mutation: Mutation) -> Outcome:
    """Write the fault, run the tests, put the file back."""
    path = tree / mutation.file
    text = path.read_text("utf-8")
    path.write_text(mutated(text, mutation), "utf-8")
    try:
        return Outcome(mutation, tests_fail(tree, MATTERS[mutation.file]))
    finally:
        path.write_text(text, "utf-8")


def judged_all(
    mutations: list[Mutation], folder: Path, *, jobs: int, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """All faults, in as many trees as there are jobs; `tell` hears of each as it is known."""
    trees: Queue[Path] = Queue()
    for number in range(jobs):
        trees.put(copied(folder / str(number)))

    def one(mutation: Mutation) -> Outcome:
        tree = trees.get()
        try:
            outcome = judged(tree, mutation)
        finally:
            trees.put(tree)
        tell(outcome)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, mutations))
