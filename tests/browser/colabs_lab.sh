#!/usr/bin/env bash
# A browser test in JupyterLab 3.6 with ipywidgets 7.7.1, Colab's generation, over this environment's torch.
#
#   bash tests/browser/colabs_lab.sh             own pictures in five actions, from upload to the LoRA
#   bash tests/browser/colabs_lab.sh WORDS ...   pytest with these words instead, e.g. `tests/browser`
#
# LORA_KIT_UPLOADS=full sends 30 photographs of 5 MB and a zip of 200 MB in test_upload_in_lab.py.
# KIT_COLABS_LAB=/a/folder keeps the environment for the next time; else it is made anew and deleted.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

kit_python() { bash colab_setup.sh python "$@"; }
packages='import sysconfig; print(sysconfig.get_paths()["purelib"])'

folder=${KIT_COLABS_LAB:-}
if [ -z "$folder" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/kit-colabs-lab.XXXXXX")
    trap 'rm -rf -- "$folder"' EXIT
fi
if [ ! -f "$folder/lab.mark" ]; then
    python=$(kit_python -c 'import sys; print(sys.executable)')
    "$python" -m venv --clear "$folder"
    # Newer ones of the last three are for JupyterLab 4 or need a newer Python package of their own.
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check jupyterlab==3.6.8 \
        notebook==6.5.7 ipywidgets==7.7.1 'ipykernel<7' 'jupyterlab_widgets<2' \
        'jupyterlab_pygments<0.3' 'setuptools<81'
    # A .pth is read after the environment's own packages, so those win.
    kit_python -c "$packages" >"$("$folder/bin/python" -c "$packages")/kit.pth"
    touch "$folder/lab.mark"
fi

if [ $# -eq 0 ]; then
    set -- tests/browser/test_start_in_lab.py -k five_actions
fi
LORA_KIT_JUPYTER="$folder/bin/python" kit_python -m pytest -q "$@"
