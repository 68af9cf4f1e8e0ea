#!/usr/bin/env bash
# The tests with the oldest versions that pyproject.toml allows, all at once; torch is today's.
#
#   bash tests/floors.sh               the part that meets the libraries (CI): nothing slow
#   bash tests/floors.sh WORDS ...     pytest with these words instead, e.g. `tests` for the whole suite
#
# KIT_FLOORS=/a/folder keeps the environment for the next time; else it is made anew and deleted.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TORCH="torch==2.13.0" CPU_INDEX="https://download.pytorch.org/whl/cpu"
# Where a library's own behaviour reaches the product: models, optimizers, files, curves, a run.
readonly PART="tests/catalog/test_catalog.py tests/lorafile/test_tensors.py tests/sinks/test_loggers.py tests/optim/test_making.py
    tests/sinks/test_sinks.py tests/families --deselect tests/families/test_streaming.py
    tests/training/test_loop.py::test_the_losses_of_the_toy_run_stay_what_they_are
    tests/training/test_loop.py::test_other_families_train_and_go_on_alike
    tests/training/test_loop.py::test_sampling_leaves_the_training_untouched
    tests/training/test_loop.py::test_a_run_that_is_left_and_goes_on_equals_an_unbroken_one
    tests/training/test_loop.py::test_cached_captions_train_the_same_weights_as_live_ones"

folder=${KIT_FLOORS:-}
if [ -z "$folder" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/kit-floors.XXXXXX")
    trap 'rm -rf -- "$folder"' EXIT
fi
python="$folder/bin/python"
mark="$folder/floors.mark"
wanted=$(cksum <pyproject.toml)

if [ ! -f "$mark" ] || [ "$(<"$mark")" != "$wanted" ]; then
    "${KIT_PYTHON:-python3}" -m venv --clear "$folder"
    pip() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
    uv() { "$folder/bin/uv" "$@"; }
    pip uv
    # As set-up does: pip itself would try for minutes where that index does not answer. What is not
    # imported needs no compiling.
    if "$python" -c "import urllib.request as r; r.urlopen('$CPU_INDEX/torch/', timeout=5)" 2>/dev/null; then
        pip --no-compile --index-url "$CPU_INDEX" "$TORCH"
    else
        pip --no-compile "$TORCH"
    fi
    # The rest is chosen without torch, whose build depends on the machine.
    echo "torch ; python_version < '3'" >"$folder/no_torch.txt"
    uv pip compile --quiet --no-annotate --no-header --extra dev \
        --resolution lowest-direct --override "$folder/no_torch.txt" \
        --python "$python" pyproject.toml -o "$folder/floors.txt"
    uv pip install --quiet --override "$folder/no_torch.txt" --python "$python" -r "$folder/floors.txt"
    "$python" -m pip check  # torch as well agrees with what was chosen
    echo "$wanted" >"$mark"
fi
grep -iE '^(accelerate|bitsandbytes|diffusers|matplotlib|numpy|peft|pillow|pydantic|transformers)==' \
    "$folder/floors.txt"

if [ $# -eq 0 ]; then
    # shellcheck disable=SC2086  # a list of words
    set -- $PART -m "not slow and not browser and not gpu"
fi
PYTHONPATH=$PWD "$python" -m pytest -q "$@"
