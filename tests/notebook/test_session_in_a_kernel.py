"""A run behind a real kernel, spoken to over the wire as a front end does.

These pass on ipykernel 6.17 (Colab's), 6.29 and 7: run them in an environment of each.
"""

import queue
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

import kit

ROOT = Path(kit.__file__).parents[1]
BEGIN = """
import sys
import kit
sys.path.insert(0, "tests/ui")
from runs import Script
from kit.ui.monitor.session import Session
settings = kit.example().replace(output_dir={folder!r}, output_name={name!r})
session = Session.start(kit.plan(settings), train=Script(steps=100_000, pace=0.02).train)
print(session.dashboard.controls.stop.model_id)
"""


class Kernel:
    """A kernel and its client."""

    def __init__(self, folder):
        self.manager, self.client = start_new_kernel(cwd=str(ROOT))
        self.folder = folder

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def begin(self, name):
        """Start a run that never ends by itself; returns the model of its Stop button."""
        return self.run(BEGIN.format(folder=str(self.folder), name=name)).strip()

    def run(self, code):
        return self.outcome(self.client.execute(code))

    def outcome(self, request, seconds=60):
        """What the cell prints; an error is raised."""
        text, limit = "", time.monotonic() + seconds
        while time.monotonic() < limit:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            text += content.get("text", "") if message["msg_type"] == "stream" else ""
            assert message["msg_type"] != "error", content["evalue"]
            if content.get("execution_state") == "idle":
                return text
        raise AssertionError(f"the cell did not end in time; it printed {text!r}")

    def messages(self, code):
        """How many messages the cell sends to the page."""
        request, count = self.client.execute(code), 0
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") == request:
                assert message["msg_type"] != "error", message["content"]["evalue"]
                count += 1
                if message["content"].get("execution_state") == "idle":
                    return count

    def click(self, model):
        data = {"method": "custom", "content": {"event": "click"}}
        content = {"comm_id": model, "data": data}
        session = self.client.session
        self.client.shell_channel.send(session.msg("comm_msg", content))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    kernel = Kernel(tmp_path_factory.mktemp("runs"))
    yield kernel
    kernel.close()


STATE = "session.join(20); print(session.dashboard.history.state, session.is_running())"


def test_a_click_gets_through_while_the_cell_waits_and_other_cells_come_after(kernel):
    stop = kernel.begin("clicked")
    waiting = kernel.client.execute("await kit.wait()\nprint('over')")
    time.sleep(0.5)
    later = kernel.client.execute(STATE)
    kernel.click(stop)
    told, last = kernel.outcome(waiting).splitlines()
    assert " is stopped, at step " in told
    assert last == "over"
    assert kernel.outcome(later) == "stopped False\n"


def test_the_notebooks_stop_sign_ends_the_run_and_the_cell_goes_on(kernel):
    kernel.begin("interrupted")
    waiting = kernel.client.execute("await kit.wait()\nprint('over')")
    time.sleep(0.5)
    kernel.manager.interrupt_kernel()
    told, last = kernel.outcome(waiting).splitlines()
    assert " is stopped, at step " in told
    assert last == "over"
    assert kernel.run(STATE) == "stopped False\n"


def test_without_a_waiting_cell_clicks_come_at_once_and_cells_run_beside_it(kernel):
    stop = kernel.begin("idle")
    assert kernel.run("print(session.is_running())") == "True\n"
    kernel.click(stop)
    assert kernel.run(STATE) == "stopped False\n"


def test_a_form_fits_into_the_queue_of_a_socket(kernel):
    """Beyond 1,000 messages ZeroMQ drops what a busy server has not fetched: see
    kit.ui.form.layouts.
    """
    kernel.run("import kit")
    assert 500 < kernel.messages("kit.show(kit.example())") < 1000


BEFORE = """
import ipywidgets
train = ipywidgets.Button()
train.on_click(lambda _: Session.start(
    kit.plan(settings.replace(output_name="waited_for")), train=Script(steps=3, pace=0.02).train))
print(train.model_id)
"""


def test_a_click_on_train_gets_through_while_the_cell_waits_for_it(kernel):
    stop = kernel.begin("before")
    kernel.click(stop)
    kernel.run(STATE)
    train = kernel.run(BEFORE).strip()
    waiting = kernel.client.execute("await kit.wait()\nprint('over')")
    time.sleep(0.5)
    kernel.click(train)
    told = kernel.outcome(waiting)
    assert told.startswith("The run is over. This cell waits for Train")
    assert told.endswith("over\n")
    assert kernel.run("print(Session.current.plan.run.name)") == "waited_for\n"


def test_a_program_that_could_not_answer_is_not_kept_waiting(kernel):
    request = kernel.client.execute("await kit.wait()\nprint('on')", allow_stdin=False)
    assert kernel.outcome(request) == "The run is over.\non\n"
