"""`bash .ci/run check|test|fix`, with a stand-in for the script that sets up and starts Python."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAND_IN = """#!/bin/sh
echo "$*" >>asked
case "$*" in *"$BREAKS"*) [ -z "$BREAKS" ] || exit 1 ;; esac
"""
SET_UP = "setup dev"

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


@pytest.fixture
def ci(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "colab_setup.sh").write_text(STAND_IN)
    (tmp_path / "chromium").write_text("#!/bin/sh\n")
    (tmp_path / "chromium").chmod(0o755)

    def run(*words, breaks="", oldest=""):
        if oldest:  # what stands in for the stage that runs beside the others
            (tmp_path / "tests").mkdir(exist_ok=True)
            (tmp_path / "tests" / "floors.sh").write_text(oldest)
        (tmp_path / "asked").unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", ".ci/run", *words],
            cwd=tmp_path,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "BREAKS": breaks},
            capture_output=True,
            text=True,
        )
        asked = tmp_path / "asked"
        return done, asked.read_text().splitlines() if asked.exists() else []

    return run


def test_check_asks_for_style_types_and_floors_and_for_no_test(ci):
    done, (first, *asked) = ci("check")
    assert done.returncode == 0
    assert first == SET_UP
    assert asked[:3] == ["python -m ruff check", "python -m ruff format --check", "python -m mypy"]
    assert "lint_imports_command" in asked[3]
    assert len(asked) == 4


def test_test_hands_its_words_to_pytest(ci):
    assert ci("test")[1] == [SET_UP, "test"]
    assert ci("test", "tests/a.py", "-k", "b")[1] == [SET_UP, "test tests/a.py -k b"]


def test_fix_puts_right_what_ruff_can(ci):
    assert ci("fix")[1] == [SET_UP, "python -m ruff check --fix", "python -m ruff format"]


def test_every_stage_runs_and_the_failed_one_is_named(ci):
    done, asked = ci("check", breaks="ruff check")
    assert done.returncode == 1
    assert "FAILED: lint\n" in done.stdout
    assert len(asked) == 5


@pytest.mark.parametrize("status", [0, 1])
def test_what_runs_beside_the_others_is_told_and_counted_like_them(ci, status):
    done, asked = ci(oldest=f"echo words of it; sleep 1; exit {status}")
    assert asked[0] == SET_UP
    assert asked[-1] == "test"  # with nothing beside it
    assert done.stdout.index("words of it") < done.stdout.index("=== tests")
    told = ["ok", "FAILED"][status]
    assert re.search(rf"^oldest +[1-9] s  {told}, beside", done.stdout, re.MULTILINE)
    [failed] = re.findall(r"^FAILED: (.*)", done.stdout, re.MULTILINE)
    assert ("oldest" in failed.split()) == bool(status)  # that of Colab has no Python here


def test_where_set_up_fails_what_runs_beside_it_is_ended(ci):
    done, asked = ci(breaks=SET_UP, oldest="sleep 60; touch late")
    assert done.returncode == 1
    assert asked == [SET_UP]
    assert done.stdout.endswith("FAILED: set-up\n")


def test_a_word_that_is_none_runs_nothing(ci):
    done, asked = ci("chekc")
    assert done.returncode == 2
    assert "check, test, fix" in done.stderr
    assert not asked
