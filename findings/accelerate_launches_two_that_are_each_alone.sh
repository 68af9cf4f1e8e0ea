#!/usr/bin/env bash
# accelerate launch without a GPU: two processes asked for are one, or two that both are the first of one.
#
# Versions: accelerate 1.15.0, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: "accelerate launch --num_processes 2 script.py" starts two processes that find
# each other over gloo, or says that it does not.
#
# What is seen: "--num_processes 2", with "--cpu" or without, starts one process and says nothing.
# "--multi_gpu --num_processes 2" starts two, but Accelerator() tells each that it is process 0 of 1,
# though WORLD_SIZE is 2: both are the main process, both train everything, both write the files. With
# Accelerator(cpu=True) the same two are 0 and 1 of 2. A script that shares work has to hold WORLD_SIZE
# against Accelerator().num_processes.
#
# Source: accelerate/commands/launch.py (without --multi_gpu and no GPU: a plain launcher);
# accelerate/state.py, PartialState._prepare_backend: no accelerator found and cpu not asked for in
# Python leaves DistributedType.NO.
set -euo pipefail
export CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$work/venv/bin/pip" install --quiet accelerate==1.15.0
cat > "$work/who.py" <<'PYTHON'
import os
import sys

from accelerate import Accelerator

here = Accelerator(cpu="cpu" in sys.argv)
print(f"process {here.process_index} of {here.num_processes}, WORLD_SIZE {os.environ.get('WORLD_SIZE')}", flush=True)
PYTHON
cd "$work"
launched() {
  # the launcher's own notices go to stderr; the lines of two processes come in any order
  "$work/venv/bin/accelerate" launch --mixed_precision no --dynamo_backend no --num_machines 1 \
    --main_process_port 0 --num_processes 2 "$@" 2> /dev/null | sort
}
alone="process 0 of 1, WORLD_SIZE None"
each_alone=$'process 0 of 1, WORLD_SIZE 2\nprocess 0 of 1, WORLD_SIZE 2'
two=$'process 0 of 2, WORLD_SIZE 2\nprocess 1 of 2, WORLD_SIZE 2'
as_described=0
expect() {
  local what="$1" expected="$2" seen
  shift 2
  seen="$(launched "$@")"
  printf '%s:\n%s\n' "$what" "$seen"
  [ "$seen" = "$expected" ] || as_described=1
}
expect "two asked for" "$alone" who.py
expect "two asked for, with --cpu" "$alone" --cpu who.py
expect "--multi_gpu, Accelerator()" "$each_alone" --multi_gpu who.py
expect "--multi_gpu, Accelerator(cpu=True)" "$two" --multi_gpu who.py cpu
[ "$as_described" = 0 ] && echo "seen as described"
exit "$as_described"
