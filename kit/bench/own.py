"""Our own training as a program that says each step as tqdm does, for `kit bench --against PATH`.

python -m kit.bench.own run.toml
"""

from __future__ import annotations

import sys
from pathlib import Path

import kit
from kit.basemodel.reading_ahead import read_ahead
from kit.bench.hosted import tell_peaks
from kit.events import Stepped


def main(file: Path) -> None:
    """Train as `kit train` does."""
    plan = kit.plan(kit.Settings.load(file))
    read_ahead(plan.settings.model.pretrained_model_name_or_path)
    try:
        for event in kit.train(plan):
            if isinstance(event, Stepped):
                print(f"steps: {event.step}/{plan.total_steps} [", file=sys.stderr, flush=True)
    finally:
        tell_peaks()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
