"""The first of each fault that `python -m tests.faults --kills 100` meets, by their own parent."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kit import catalog
from tests.faults.cases import FAULTS, sample
from tests.faults.running import BREAK

ROOT = Path(__file__).parents[2]
FIRST = {case.fault: case.number for case in reversed(sample(100))}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    file = tmp_path_factory.mktemp("faults") / "results.jsonl"
    words = ["--only", *map(str, FIRST.values()), "--json", str(file)]
    command = [sys.executable, "-m", "tests.faults", *words]
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert file.exists(), ran.stdout + ran.stderr
    lines = map(json.loads, file.read_text("utf-8").splitlines())
    return {line["case"]["fault"]: line for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_training_that_goes_on_equals_a_whole_one(results, fault):
    result = results[fault]
    assert not result["skipped"], result
    assert not result["wrong"], result


def test_a_hundred_meet_every_optimizer_lora_type_and_fault_twice():
    cases = sample(100)
    for names, met in (
        (catalog.OPTIMIZERS, Counter(case.optimizer for case in cases)),
        (catalog.LORA_TYPES, Counter(case.lora_type for case in cases)),
        (FAULTS, Counter(case.fault for case in cases)),
        (("eager", "auto"), Counter(case.engine for case in cases)),
    ):
        assert met.keys() == set(names)
        assert min(met.values()) >= 2
    assert FAULTS.keys() == BREAK.keys()
    assert sum(FAULTS.values()) == 100
