"""See the package's own words."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.generated import sample
from tests.mutants.listed import EXEMPT, LISTED, Mutation
from tests.mutants.running import MATTERS, ROOT, Outcome, WrongText, copied, judged_all, mutated
from tests.mutants.running import tests_fail as failing

MOST_EXEMPT = 2


def main() -> int:
    """Run what the arguments ask for; the exit status."""
    asked = _arguments()
    numbers = {str(number) for number in asked.only}
    listed = () if asked.generated else LISTED
    mutations = [row for row in listed if not numbers or row.name.split()[0] in numbers]
    if wrong := list(_wrong_texts(mutations)):
        print(*wrong, "Mend these rows of tests/mutants/listed.py.", sep="\n")
        return 2
    if not numbers:
        mutations += sample(ROOT, asked.sample, asked.seed)
    if asked.check:
        print(*(row.name for row in mutations), sep="\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if asked.baseline and (broken := _baseline(Path(folder), mutations)):
            print(f"Without any fault: {broken}. Mend that first.")
            return 2
        outcomes = judged_all(mutations, Path(folder), jobs=asked.jobs, tell=_tell)
    return _summary(outcomes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="numbers of the list, no sample")
    parser.add_argument("--sample", type=int, default=40, help="generated faults, at most")
    parser.add_argument("--generated", action="store_true", help="the sample alone")
    parser.add_argument("--seed", type=int, default=9, help="of the sample")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--check", action="store_true", help="list the faults, run nothing")
    parser.add_argument("--no-baseline", dest="baseline", action="store_false")
    return parser.parse_args()


def _wrong_texts(mutations: list[Mutation]) -> list[str]:
    wrong = []
    for mutation in mutations:
        try:
            mutated((ROOT / mutation.file).read_text("utf-8"), mutation)
        except (OSError, WrongText) as error:
            wrong.append(str(error))
    return wrong


def _baseline(folder: Path, mutations: list[Mutation]) -> str:
    """The tests must pass without a fault, or every fault would seem to be noticed."""
    files = tuple(file for mutation in mutations for file in MATTERS[mutation.file])
    return failing(copied(folder / "baseline"), files, longest=3 * 3600)


def _tell(outcome: Outcome) -> None:
    said = f"noticed  {outcome.killed_by}" if outcome.killed_by else "SURVIVES"
    print(f"{time.strftime('%H:%M:%S')} {outcome.mutation.name}: {said}", flush=True)


def _summary(outcomes: list[Outcome]) -> int:
    """The last line, and the status."""
    survive = [o.mutation.name for o in outcomes if not o.killed_by]
    exempt = [name for name in survive if name in EXEMPT]
    for name in exempt:
        print(f"exempted: {name}: {EXEMPT[name]}")
    for name in survive:
        if name not in EXEMPT:
            print(f"survives: {name}")
    print(
        f"{len(survive)} of {len(outcomes)} faults survive, {len(exempt)} of them exempted by name"
    )
    return int(survive != exempt or len(EXEMPT) > MOST_EXEMPT)


if __name__ == "__main__":
    sys.exit(main())
