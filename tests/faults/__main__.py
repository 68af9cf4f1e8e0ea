"""Break trainings on purpose, restart them, and compare with a training that nobody broke.

    python -m tests.faults --kills 100             a seeded sample: every optimizer and LoRA type
    python -m tests.faults --only 3 17 --keep DIR  these of it, with everything they left

A training is equal where weights, state, metadata, pictures, records and events are, bit for bit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch

from tests.faults.cases import Case, sample
from tests.faults.children import in_child
from tests.faults.running import Judged, Place, judged


def main() -> int:
    """Run what the arguments ask for; 1 where a case is not equal."""
    asked = _arguments()
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    cases = sample(asked.kills, asked.seed)
    cases = [case for case in cases if not asked.only or case.number in asked.only]
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        _import_all(folder / "imports")
        results = []
        for case in cases:
            results.append(judged(case, folder / str(case.number)))
            _tell(results[-1])
    if asked.json:
        lines = [json.dumps(asdict(result) | {"name": str(result.case)}) for result in results]
        asked.json.write_text("\n".join(lines) + "\n", "utf-8")
    return _summary(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="cases of the sample")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of the sample")
    parser.add_argument("--keep", type=Path, help="a folder for everything that is left")
    parser.add_argument("--json", type=Path, help="a file for the results, a line each")
    return parser.parse_args()


def _import_all(folder: Path) -> None:
    """Import here whatever a training imports, so that no child has to."""
    folder.mkdir(parents=True)
    names = folder / "modules"

    def note(_: object) -> None:
        names.write_text("\n".join(sys.modules), "utf-8")

    first = Case(0, "", "AdamW", "Standard", 0, {"sample_every_n_steps": 3})
    outcome = in_child(Place(folder).settings(first), folder / "log", hear=note)
    if outcome.status != 0:
        raise SystemExit(f"No training works here:\n{outcome.said}")
    for name in names.read_text("utf-8").splitlines():
        if name.partition(".")[0] not in ("tests", "__main__") and name not in sys.modules:
            try:
                importlib.import_module(name)
            except Exception as error:  # a name that only its package can make
                print(f"not imported before: {name} ({type(error).__name__})")


def _tell(result: Judged) -> None:
    said = f"cannot run here: {result.skipped}" if result.skipped else "equal"
    print(f"{time.strftime('%H:%M:%S')} {result.case}", flush=True)
    print(f"  {'; '.join(result.wrong) or said}, ends {result.ends}, {result.seconds:.1f} s")


def _summary(results: list[Judged]) -> int:
    """What was met how often, and the last line."""
    skipped = [result for result in results if result.skipped]
    ran = [result for result in results if not result.skipped]
    wrong = [result for result in ran if result.wrong]
    for what, kinds in (
        ("faults", Counter(result.case.fault for result in ran)),
        ("optimizers", Counter(result.case.optimizer for result in ran)),
        ("LoRA types", Counter(result.case.lora_type for result in ran)),
    ):
        print(f"{what}: {', '.join(f'{name} {count}' for name, count in kinds.items())}")
    for result in skipped:
        print(f"skipped: {result.case}: {result.skipped}")
    for result in wrong:
        print(f"NOT EQUAL: {result.case}")
    print(f"{len(ran) - len(wrong)} of {len(ran)} equal, {len(skipped)} cannot run here")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
