"""See the package's own words."""

import argparse
import collections
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "TRANSFORMERS_VERBOSITY": "error"}


def main():
    """Run what the arguments ask for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="in all, spread over the readers")
    parser.add_argument("--only", nargs="*", default=[], help="readers, or cases as reader:number")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kit-fuzz-") as folder:
        os.environ |= {"HF_HOME": f"{folder}/hub", "LORA_KIT_CACHE": f"{folder}/cache"}
        from tests.fuzz.readers import READERS
        from tests.fuzz.running import MOST_SECONDS, run_case

        wanted = [name for name in READERS if not asked.only or name in asked.only]
        numbers = {name: range(-(-asked.cases // len(wanted))) for name in wanted}
        for case in (text for text in asked.only if ":" in text):
            reader, _, number = case.partition(":")
            numbers[reader] = [int(number)]
        os.chdir(folder)
        outcomes = []
        for reader, cases in numbers.items():
            own = [
                run_case(reader, READERS[reader], number, Path(folder) / "case", seed=asked.seed)
                for number in cases
            ]
            outcomes += own
            _tell(reader, own)
    faults = [outcome for outcome in outcomes if outcome.fault]
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    slow = sum(outcome.seconds > MOST_SECONDS for outcome in outcomes)
    changed = sum("files changed" in outcome.fault for outcome in faults)
    print(
        f"{len(outcomes)} cases of {len(numbers)} readers: "
        f"{sum(outcome.refused for outcome in outcomes)} refused with a KitError, "
        f"{len(faults) - changed} tracebacks, {slow} over {MOST_SECONDS:.0f} s, {changed} with "
        f"changed files; slowest {slowest.seconds:.2f} s ({slowest.name})"
    )
    return 1 if faults or slow else 0


def _tell(reader, outcomes):
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    refused = sum(outcome.refused for outcome in outcomes)
    print(
        f"{reader:<16} {len(outcomes):>5} cases, {refused:>5} refused, slowest "
        f"{slowest.seconds:6.2f} s ({slowest.number})",
        flush=True,
    )
    faults = collections.defaultdict(list)
    for outcome in outcomes:
        if outcome.fault:
            faults[outcome.fault.partition(": ")[0]].append(outcome)
    for found in faults.values():
        print(f"    {len(found)} x {found[0].name} {found[0].fault}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
