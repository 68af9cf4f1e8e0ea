"""The faults of `python -m tests.mutants` can be put where they are listed, and tests are named."""

import ast

import pytest

from kit.errors import KitError
from tests.mutants import running
from tests.mutants.generated import NUMERIC, generated, sample
from tests.mutants.listed import EXEMPT, LISTED, Mutation
from tests.mutants.running import MATTERS, ROOT, WrongText, mutated


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row.name)
def test_every_listed_text_stands_once(row):
    text = (ROOT / row.file).read_text("utf-8")
    changed = mutated(text, row)
    assert changed != text
    ast.parse(changed)


def test_a_text_that_moved_away_is_an_error():
    row = Mutation("1 gone", "kit/diffusion/losses.py", "no such text", "")
    with pytest.raises(WrongText, match=r"1 gone: found 0 times in kit/diffusion/losses\.py"):
        mutated("a = 1\n", row)
    with pytest.raises(WrongText, match="found 2 times"):
        mutated("no such text, no such text", row)
    assert not issubclass(WrongText, KitError)


def test_every_module_has_tests_that_are_there():
    assert {row.file for row in LISTED} | {*NUMERIC} <= {*MATTERS}
    for files in MATTERS.values():
        assert all((ROOT / file.partition("::")[0]).exists() for file in files)


def test_generated_faults_are_single_and_well_formed():
    for file in NUMERIC:
        text, faults = (ROOT / file).read_text("utf-8"), list(generated(ROOT, file))
        plain = ast.dump(ast.parse(text))
        names = [fault.name for fault in faults]
        assert len(names) == len(set(names)) > 0
        for fault in faults:
            assert ast.dump(ast.parse(mutated(text, fault))) != plain, fault


def test_the_sample_is_the_seeds():
    first = [fault.name for fault in sample(ROOT, 20, 9)]
    assert first == [fault.name for fault in sample(ROOT, 40, 9)][:20]
    assert first != [fault.name for fault in sample(ROOT, 20, 10)]


def test_at_most_two_are_exempted_each_with_a_reason():
    assert len(EXEMPT) <= 2
    assert all(reason.strip() for reason in EXEMPT.values())


def test_a_fault_is_judged_in_a_copy_that_is_whole_afterwards(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    (tree / "kit").mkdir(parents=True)
    (tree / "kit" / "__init__.py").touch()
    (tree / "test_it.py").write_text("from kit.sums import two\ndef test_it(): assert two() == 2\n")
    (tree / "kit" / "sums.py").write_text("def two():\n    return 2\n\n\nUNSEEN = 7\n")
    monkeypatch.setitem(MATTERS, "kit/sums.py", ("test_it.py",))
    seen = running.judged(tree, Mutation("1", "kit/sums.py", "return 2", "return 3"))
    unseen = running.judged(tree, Mutation("2", "kit/sums.py", "UNSEEN = 7", "UNSEEN = 8"))
    assert seen.killed_by.startswith("FAILED test_it.py::test_it")
    assert unseen.killed_by == ""
    assert (tree / "kit" / "sums.py").read_text() == "def two():\n    return 2\n\n\nUNSEEN = 7\n"
