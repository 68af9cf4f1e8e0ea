"""Stands in for accelerate's launcher and its processes: holds a run's folder and tells events.

stand_in.py RUN_DIR HOW: "done", "stops" (as it is asked to, by a file or by SIGTERM), "fails",
"dies" (killed, without a word), "nothing" (ends before it began), "given back" (asked to stop
before its first step).
"""

import os
import signal
import sys
import time
from pathlib import Path

from kit.control import RunControl
from kit.events import Began, Failed, Finished
from kit.runs.control_files import Inbox
from kit.runs.lock import at_work_in
from kit.sinks import JsonLines

if __name__ == "__main__":
    run_dir, how = Path(sys.argv[1]), sys.argv[2]
    if how == "nothing":
        sys.exit(1)
    if how == "given back":
        sys.exit(3)
    control, code = RunControl(), 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
    with at_work_in(run_dir) as hold:
        tell, inbox = JsonLines(run_dir / "events.jsonl"), Inbox(run_dir, hold.id)
        tell(Began(str(run_dir), "cat", 10))
        (run_dir / "environment.txt").write_text(os.environ.get("LORA_KIT_PROCESSES", ""))
        if how == "done":
            tell(Finished(10, "done"))
        elif how == "stops":
            while not control.stop_requested:
                time.sleep(0.02)
                inbox(control)
            tell(Finished(4, "asked to stop"))
        elif how == "fails":
            tell(Failed("rank 1: out of memory"))
            code = 1
        elif how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "hangs":
            time.sleep(60)
    sys.exit(code)
