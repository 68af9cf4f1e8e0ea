#!/usr/bin/env bash
# Sets LoRA Kit up, wherever it lies: Colab, Kaggle, Runpod, an environment of yours, or a bare machine.
#
#   bash colab_setup.sh                  set up, then say what comes next
#   bash colab_setup.sh demo [...]       set up, then `python -m kit demo ...`: trains a small LoRA
#   bash colab_setup.sh test [...]       set up with the developers' tools, then `python -m pytest ...`
#   bash colab_setup.sh setup [dev]      set up only; with `dev`, the developers' tools as well
#   bash colab_setup.sh python ...       run something with the Python that LoRA Kit is installed in
#
# Where it installs. A Python that already has torch 2.6 or newer (Colab, Kaggle, Runpod, an environment
# of yours) is used as it is: only what is missing is added, and torch, numpy, pillow, ipywidgets and the
# like are held at the version they have, because a running notebook would break. Everywhere else all
# goes into the folder .venv beside this file; delete it to start afresh.
#
# KIT_PYTHON=/path/to/python chooses the Python, as long as there is no .venv yet. No administrator
# rights are needed. Run it as often as you like: when nothing has changed it does nothing.

set -euo pipefail

readonly CPU_TORCH="torch==2.13.0"
readonly CPU_INDEX="https://download.pytorch.org/whl/cpu"
# What a running notebook has loaded, or was built against what it has loaded.
readonly HELD="torch torchvision torchaudio triton numpy pillow matplotlib ipywidgets ipykernel ipython"

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
readonly root venv="$root/.venv"
# Everything that decides whether an installation is still right; a moved folder has other paths.
key="$(cksum <"$root/pyproject.toml") $root"

python=""   # the Python that gets LoRA Kit
work=""     # a folder for this run's log, made when something has to be installed
extra=""    # "" or "dev": which of pyproject.toml's extras

say() { printf '%s\n' "$*"; }

# Ends the script. First argument: what was found; each further one: a line of what to do.
fail() {
    printf '\nLoRA Kit could not be set up: %s\n' "$1" >&2
    shift
    if [ $# -gt 0 ]; then printf '  %s\n' "$@" >&2; fi
    exit 1
}

# --------------------------------------------------------------------------- which Python

# The notebook host we are on, or nothing. That /content exists says little: other images have it too.
host_name() {
    if [ -n "${KAGGLE_KERNEL_RUN_TYPE:-}" ]; then
        say Kaggle
    elif [ -n "${COLAB_RELEASE_TAG:-}${COLAB_GPU:-}" ]; then
        say Colab
    elif [ -n "${RUNPOD_POD_ID:-}" ]; then
        say Runpod
    elif [ -d /content ] && python3 -c 'import google.colab' 2>/dev/null; then
        say Colab
    fi
}

# Prints the first Python of 3.11 or newer. One that is there may still not run: pyenv leaves stand-ins.
find_python() {
    local name version seen=""
    for name in "${KIT_PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if version=$("$name" -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null); then
            if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
                "$name" -c 'import sys; print(sys.executable)'
                return
            fi
            seen="$seen $version"
        fi
        [ -z "${KIT_PYTHON:-}" ] || break
    done
    fail "it needs Python 3.11 or newer; found:${seen:- none}${KIT_PYTHON:+ ($KIT_PYTHON)}." \
        "Debian, Ubuntu   sudo apt install python3.12 python3.12-venv  (or another from 3.11 on)" \
        "macOS            brew install python@3.12" \
        "Colab, Kaggle    choose the latest runtime or environment" \
        "Without administrator rights: install uv (https://docs.astral.sh/uv), then" \
        "                 uv python install 3.12" \
        "                 KIT_PYTHON=\"\$(uv python find 3.12)\" bash colab_setup.sh"
}

# What a Python has, in three lines: the version of its torch or "none" (followed by "old" below 2.6),
# whether its system manages it ("managed" or "free"), the version of LoRA Kit in it or "none".
# Reads what pip wrote down, for importing torch takes seconds. -P: this folder does not count.
look_into() {
    "$1" -P - <<'PY'
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path


def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


torch = version("torch")
is_new = [int(number) for number in re.findall(r"\d+", torch)[:2]] >= [2, 6]
is_managed = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()
print(torch if is_new or torch == "none" else f"{torch} old")
print("managed" if is_managed and sys.prefix == sys.base_prefix else "free")
print(version("lora-kit"))
PY
}

has_torch() {
    local seen
    seen=$(look_into "$1") || true  # not piped into head, which would break the pipe
    case "${seen%%$'\n'*}" in none | *" old" | "") return 1 ;; esac
}

# --------------------------------------------------------------------------- pip

make_work() {
    if [ -n "$work" ]; then return; fi
    work=$(mktemp -d "${TMPDIR:-/tmp}/lora-kit.XXXXXX") ||
        fail "no file can be written to ${TMPDIR:-/tmp}." "Free some space, or set TMPDIR to another folder."
}

# pip, quiet; when it fails, the reason in plain words. The log is kept then.
pip_install() {
    make_work
    if ! (cd -- "$root" && "$python" -m pip --disable-pip-version-check --no-input install \
        --quiet --no-warn-script-location "$@") >"$work/log" 2>&1; then
        explain_pip "$work/log"
    fi
}

# pip's own words, where no sentence of ours says it better.
end_of() {
    printf '\n' >&2
    grep -v '^WARNING' "$1" | tail -n 12 | cut -c -300 >&2
}

# Ends with what pip's log tells. The order matters: without a network pip also finds "no matching" file.
explain_pip() {
    local log=$1
    if grep -qiE 'no space left|errno 28|disk quota' "$log"; then
        fail "the disk is full." \
            "Free some space where $root lies, and in ${TMPDIR:-/tmp}; \`python3 -m pip cache purge\` helps." \
            "TMPDIR=/another/folder moves pip's temporary files. What is installed so far is kept."
    elif grep -qiE 'certificate_verify_failed|SSLError' "$log"; then
        fail "the certificate of the package index is not trusted." \
            "Behind a company's proxy, point PIP_CERT at its certificate file and run this again."
    elif grep -qiE 'name resolution|not known|nodename nor|NewConnectionError|timed out|ConnectTimeout|unreachable|ProxyError|refused' "$log"; then
        fail "the package index cannot be reached." \
            "Check the network (on Kaggle: Settings, Internet on), then run this again; it goes on where it was." \
            "A mirror is used when PIP_INDEX_URL is set."
    elif grep -qiE 'ResolutionImpossible|conflict' "$log"; then
        end_of "$log"
        fail "what is installed here does not fit LoRA Kit's needs (see above)." \
            "Choose a newer runtime or environment, or let LoRA Kit make its own:" \
            "start it from a Python without torch, with KIT_PYTHON=/path/to/python."
    elif grep -qiE 'permission denied|errno 13|read-only' "$log"; then
        end_of "$log"
        fail "a folder cannot be written to (see above)." "Copy LoRA Kit to a folder of yours."
    elif grep -qi 'no matching distribution' "$log"; then
        fail "a package has no build for this Python ($("$python" --version 2>&1), $(uname -sm))." \
            "Python 3.12 on 64-bit Linux or macOS is a safe choice: KIT_PYTHON=/path/to/python3.12"
    fi
    end_of "$log"
    fail "pip failed (see above)." "The whole log: $log"
}

# The installed ones of the packages named, as pip's constraints: name==version, one a line. A pillow
# that is too old for LoRA Kit is left out: it is replaced, and a notebook that runs has to be restarted.
versions_of() {
    "$python" -P - "$@" <<'PY'
import re
import sys
from importlib import metadata

for name in sys.argv[1:]:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        continue
    # PyTorch's own index has long given pillow 11.0; 11.3 reads more pictures and replaces it safely.
    if name == "pillow" and [int(n) for n in re.findall(r"\d+", version)[:2]] < [11, 3]:
        continue
    print(f"{name}=={version}")
PY
}

# Installs LoRA Kit from this folder, holding the packages named in the arguments at their versions.
install_kit() {
    local target=".[heic]"  # telephones' pictures are read; dev brings that, too
    say "  the other packages ..."
    if [ -n "$extra" ]; then target=".[$extra]"; fi
    make_work
    versions_of "$@" >"$work/held.txt"
    pip_install --constraint "$work/held.txt" --editable "$target"
}

# --------------------------------------------------------------------------- our own environment

need_space() {
    local megabytes
    megabytes=$(df -Pk -- "$root" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$megabytes" -ge "$1" ] ||
        fail "the disk of $root has $megabytes MB free; $1 MB are needed." \
            "Free some space, or move LoRA Kit to another disk."
}

make_venv() {
    local base flags=""
    base=$(find_python)
    # A system's Python that must be left alone can still lend its torch.
    if has_torch "$base"; then flags=--system-site-packages; fi
    say "  a new environment in .venv, $("$base" --version) ..."
    if ! "$base" -m venv --clear $flags -- "$venv" >/dev/null 2>&1; then
        rm -rf -- "$venv"
        fail "$base cannot make an environment." \
            "Debian, Ubuntu: sudo apt install python3-venv" \
            "Otherwise check that $root can be written to, or choose another with KIT_PYTHON=/path/to/python."
    fi
}

# The build of torch that suits this machine; one that is there already and new enough is kept.
install_torch() {
    if has_torch "$python"; then return; fi
    if nvidia-smi -L >/dev/null 2>&1; then
        need_space 9000
        say "  PyTorch for the NVIDIA GPU: about 3 GB, this takes minutes ..."
        pip_install "torch>=2.6"
    elif [ "$(uname -s)" != Linux ]; then
        need_space 2000
        say "  PyTorch ..."
        pip_install "torch>=2.6"
    else
        need_space 2500
        # For Linux the usual index has CUDA's build, gigabytes that would be of no use here. pip itself
        # is not asked whether the other index answers: it would try for minutes.
        if "$python" -c "import urllib.request as r; r.urlopen('$CPU_INDEX/torch/', timeout=5)" 2>/dev/null; then
            say "  PyTorch, the build for CPUs: about 200 MB ..."
            pip_install --index-url "$CPU_INDEX" "$CPU_TORCH"
        else
            say "  PyTorch, from pip's usual index, for $CPU_INDEX"
            say "  does not answer; on most machines that is CUDA's build, about 3 GB ..."
            pip_install "$CPU_TORCH"
        fi
    fi
}

ensure_own() {
    python="$venv/bin/python"
    if is_fresh "$venv" "$key"; then return; fi
    say "Setting LoRA Kit up in $venv"
    # One whose Python is gone is of no use to anybody; one without pip (broken off, or made by uv) is.
    if ! "$python" -c '' 2>/dev/null; then
        make_venv
    elif ! "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m ensurepip >/dev/null 2>&1 || fail "$venv has no pip." "Delete that folder and run this again."
    fi
    install_torch
    install_kit torch
    finish "$venv" "$key"
}

# --------------------------------------------------------------------------- somebody else's Python

# $1: the host's name or nothing, $2: what look_into said. Marks lie beside the sources, in the folder
# that pip makes for an editable installation: a host's own folders are none of our business.
ensure_theirs() {
    local marks="$root/lora_kit.egg-info" theirs="$key $python $2"
    if is_fresh "$marks" "$theirs"; then return; fi
    local torch=${2%%$'\n'*}
    say "Setting LoRA Kit up in $python${1:+ of $1}, which keeps its torch $torch"
    # A rented machine may be installed into, even where its system asks to be left alone.
    if [ -n "$1" ]; then export PIP_BREAK_SYSTEM_PACKAGES=1; fi
    # shellcheck disable=SC2086  # a list of words
    install_kit $HELD
    # Looked at again, because "LoRA Kit: none" has just become untrue.
    finish "$marks" "$key $python $(look_into "$python")"
}

# --------------------------------------------------------------------------- marks

# Is there a mark in folder $1 saying that the installation described by $2 was finished?
is_fresh() {
    local mark="$1/lora-kit-${extra:-plain}.mark"
    [ -f "$mark" ] && [ -x "$python" ] && [ "$(<"$mark")" = "$2" ]
}

# The version of a PEFT that is too old, or nothing. LoRA Kit does without PEFT, but diffusers imports
# the one it finds, and before 0.18 that fails beside transformers 5.
old_peft() {
    "$python" -P -c '
import re
from importlib import metadata
try:
    peft = metadata.version("peft")
except metadata.PackageNotFoundError:
    peft = ""
if peft and [int(number) for number in re.findall(r"\d+", peft)[:2]] < [0, 18]:
    print(peft)
'
}

# Tries the installation, then marks it as done.
finish() {
    local peft
    peft=$(old_peft)
    [ -z "$peft" ] || fail "PEFT $peft, which is installed here, does not load beside transformers 5," \
        "and diffusers, which imports it, not either. Bring it up to date, then run this again:" \
        "$python -m pip install --upgrade 'peft>=0.18'"
    "$python" -P -c '
import platform, sys, torch, kit
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no NVIDIA GPU in use"
print(f"LoRA Kit {kit.__version__} is ready: Python {platform.python_version()}, torch {torch.__version__}, {gpu}.")
' || fail "torch does not start (see above)." "If you know the right build, install it with: $python -m pip install ..."
    if nvidia-smi -L >/dev/null 2>&1 && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        say "  This torch does not see the NVIDIA GPU; most often its driver is too old. Update the driver, or"
        say "  install the build for your CUDA from https://pytorch.org/get-started with: $python -m pip install ..."
    fi
    printf '%s' "$2" >"$1/lora-kit-${extra:-plain}.mark"
    # The developers' tools come on top of everything else.
    if [ "$extra" = dev ]; then printf '%s' "$2" >"$1/lora-kit-plain.mark"; fi
    if [ -n "$work" ]; then rm -rf -- "$work"; fi
}

# --------------------------------------------------------------------------- what was asked

set_up() {
    local host seen
    host=$(host_name)
    if [ -z "$host" ] && [ -x "$venv/bin/python" ]; then
        ensure_own
        return
    fi
    python=$(find_python)
    seen=$(look_into "$python")
    case "$host:$seen" in
        *:none* | *" old"*)
            if [ -n "$host" ]; then
                say "$host's Python has torch ${seen%%$'\n'*}; LoRA Kit needs 2.6 or newer and makes its own environment."
                say "Notebooks do not see that one: choose a newer runtime or template for them."
            fi
            ensure_own
            ;;
        :*managed*) ensure_own ;;
        *) ensure_theirs "$host" "$seen" ;;
    esac
}

asked=${1:-hint}
if [ $# -gt 0 ]; then shift; fi
case "$asked" in
    hint | demo | python) ;;
    test) extra=dev ;;
    setup)
        extra=${1:-}
        [ -z "$extra" ] || [ "$extra" = dev ] || fail "there is no 'setup $extra'." "Known: setup, setup dev."
        ;;
    -h | --help | help)
        sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit
        ;;
    *) fail "there is no '$asked'." "Known: demo, test, setup, python; without a word it only sets up." ;;
esac

set_up
case "$asked" in
    hint)
        say "Next: open notebooks/train.ipynb, or see it work now:  bash colab_setup.sh demo"
        ;;
    demo) exec "$python" -P -m kit demo "$@" ;;
    python) exec "$python" "$@" ;;
    test)
        cd -- "$root"
        # All of them in two processes of one thread each: on two cores that halves the time, while
        # threads that spin for each other would multiply it.
        [ $# -gt 0 ] || set -- -n 2 --dist loadfile
        OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec "$python" -m pytest "$@"
        ;;
esac
