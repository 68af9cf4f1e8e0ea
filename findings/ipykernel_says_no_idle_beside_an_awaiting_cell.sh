#!/usr/bin/env bash
# While a cell awaits, ipykernel handles a widget's message and never says that it is idle again.
#
# Versions: ipykernel 7.4.0, ipywidgets 8.1.9, jupyter_client as pip finds it, Python 3.11.
#
# What one would guess: every message on the shell channel is answered by status busy and status
# idle on IOPub, as the messaging protocol says, whether or not a cell runs meanwhile.
#
# What is seen: without a running cell a change of a text field gets busy and idle. Beside a cell
# that awaits, the same change is handled at once (its observer runs), and neither is sent. A page
# of ipywidgets sends a field's next change only after idle: the second one stays in the page.
#
# Source: ipykernel/kernelbase.py, shell_main dispatches comm messages beside a locked shell with
# concurrent=True; dispatch_shell publishes both statuses only `if not concurrent`.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ipykernel==7.4.0 ipywidgets==8.1.9 jupyter_client
HOME="$work" "$work/venv/bin/python" - <<'PYTHON'
import queue
import sys
import time

from jupyter_client.manager import start_new_kernel

FIELD = """import ipywidgets
field = ipywidgets.Text()
field.observe(lambda change: print("seen", change["new"], flush=True), names="value")
print("id", field.comm.comm_id)"""


def heard(client, about, seconds):
    """What IOPub says of this message within so many seconds."""
    told, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            message = client.get_iopub_msg(timeout=0.2)
        except queue.Empty:
            continue
        content = message["content"]
        if message["parent_header"].get("msg_id") == about:
            told.append(content.get("execution_state") or content.get("text", "").strip())
    return [word for word in told if word]


def change(client, field, value):
    """As a page says that a field has changed."""
    data = {"method": "update", "state": {"value": value}, "buffer_paths": []}
    message = client.session.msg("comm_msg", {"comm_id": field, "data": data})
    client.shell_channel.send(message)
    return heard(client, message["header"]["msg_id"], 2)


manager, client = start_new_kernel(kernel_name="python3")
try:
    lines = heard(client, client.execute(FIELD), 3)
    field = next(word for line in lines for word in line.split() if len(word) == 32)
    alone = change(client, field, "a")
    client.execute("import asyncio\nawait asyncio.sleep(20)")
    time.sleep(1)
    beside = change(client, field, "b")
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
print("no cell runs:  ", alone)
print("a cell awaits: ", beside)
is_so = "idle" in alone and "seen b" in beside and "idle" not in beside
print("As described." if is_so else "Not as described.")
sys.exit(not is_so)
PYTHON
