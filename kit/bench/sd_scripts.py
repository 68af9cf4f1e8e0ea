"""A checkout of kohya-ss/sd-scripts, and how it is made to do a piece of work."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kit.bench import hosted
from kit.bench.bases import write_tokenizer
from kit.bench.work import FAMILIES, Work
from kit.dataset.tokens import END
from kit.errors import SECRETS, KitError
from kit.runs.atomic_write import write_text

CACHES_CAPTIONS = frozenset({"sdxl"})  # of the families that it trains
NAME = "sd-scripts"
SCRIPTS = {"sd1": "train_network.py", "sd2": "train_network.py", "sdxl": "sdxl_train_network.py"}
# Tokenizers that it would fetch, and their pads: the Hub's names with _ for /.
TOKENIZERS = {
    "openai_clip-vit-large-patch14": END,
    "stabilityai_stable-diffusion-2": "!",
    "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k": "!",
}


@dataclass(frozen=True)
class Checkout:
    """Its folder, and the Python of the environment that it runs in."""

    path: Path
    python: str

    @classmethod
    def at(cls, path: Path, python: str = "") -> Checkout:
        """The checkout in a folder; python: blank for that of its own venv, or else ours.

        Raises: KitError where it is none.
        """
        missing = [name for name in sorted(set(SCRIPTS.values())) if not (path / name).is_file()]
        if missing:
            raise KitError(
                f"--against {path}: there is no {missing[0]}.",
                "It may be diffusers, or the folder of a checkout of kohya-ss/sd-scripts.",
                "git clone https://github.com/kohya-ss/sd-scripts, and name its folder.",
            )
        own = (path / name / "bin" / "python" for name in ("venv", ".venv"))
        chosen = python or next((str(each) for each in own if each.is_file()), sys.executable)
        if shutil.which(chosen) is None:
            raise KitError(
                f"--python {chosen}: there is no such program.",
                "It is the Python of the environment in which the other trainer runs.",
                f"Make one: python -m venv env; env/bin/pip install -r {path}/requirements.txt",
            )
        return cls(path.absolute(), chosen)

    def command(self, work: Work, arguments: str, room: Path) -> list[str]:
        """The words that start it.

        arguments: its TOML; room: a folder for what it reads.

        Raises: KitError for work that it cannot do.
        """
        if work.base_precision != "as_mixed_precision":
            raise KitError(
                f"--base-precision {work.base_precision}: {NAME} cannot do that.",
                "It keeps the base in the precision that it computes in.",
                "Leave --base-precision away, or compare with --against diffusers.",
            )
        write_text(room / "theirs.toml", arguments)
        for tokenizer, pad in TOKENIZERS.items():
            write_tokenizer(room / "tokenizers" / tokenizer, pad)
        script = self.path / SCRIPTS[FAMILIES[work.family]]
        words = ["--config_file", str(room / "theirs.toml")]
        words += ["--tokenizer_cache_dir", str(room / "tokenizers")]
        return [self.python, str(Path(hosted.__file__)), str(script), *words]

    def environment(self) -> Mapping[str, str]:
        """Its own: nothing is fetched, our packages are not found, and no token is handed on."""
        ours = {"PYTHONPATH", "PYTHONHOME", *SECRETS}
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return kept | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}

    def failed(self, said: str) -> KitError:
        """That it did not train."""
        return KitError(
            f"{NAME} in {self.path} did not train: {said}",
            f"It ran with {self.python}, which must have the packages that it needs.",
            "Name the Python of an environment in which it trains, with --python; one is made by: "
            f"python -m venv env; env/bin/pip install -r {self.path}/requirements.txt",
        )


def differences(work: Work) -> list[str]:
    """What it does otherwise whatever its arguments say."""
    if FAMILIES[work.family] in CACHES_CAPTIONS or work.encodes:
        return []
    return [f"{NAME} encodes captions in each step: it caches them for SDXL alone"]
