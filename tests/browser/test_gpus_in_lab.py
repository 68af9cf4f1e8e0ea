"""Two GPUs in the form: choosing both, training as processes of their own, a restarted kernel.

Two processes on the CPU stand in for two on GPUs; a script stands in for nvidia-smi.
"""

import os

import pytest
from playwright.sync_api import expect

from tests.browser.test_looks_in_lab import is_sound
from tests.browser.test_states_in_lab import look
from tests.browser.test_train_in_lab import LONG, STEP, is_there, state

SMI = "#!/bin/sh\necho 'Tesla T4, 15360'\necho 'Tesla T4, 15360'\n"
DRAWS = "LORA_KIT_SHOTS" in os.environ


def cells(folder, steps):
    """The form of the example on a machine with two GPUs, of which torch sees none."""
    (folder / "nvidia-smi").write_text(SMI)
    (folder / "nvidia-smi").chmod(0o755)
    show = (
        f"import os\nos.environ['PATH'] = {str(folder)!r} + ':' + os.environ['PATH']\n"
        f"os.environ['LORA_KIT_QUEUE'] = {str(folder / 'queue')!r}\n"
        "import kit\n"
        f"kit.show(kit.example(steps={steps}).replace(mixed_precision='no', guardian='off',"
        " sample_every_n_epochs=0, sample_every_n_steps=0))"
    )
    return [show]


def test_both_gpus_train_and_a_new_kernel_has_their_run_with_its_buttons(notebook, tmp_path):
    notebook.open(cells(tmp_path, 3000)).run_all()
    is_there(notebook)
    expect(notebook.output.locator(".kit-gpus").first).to_contain_text(
        "Here are 2 GPUs; one trains"
    )
    if DRAWS:
        look(notebook, "gpus-one")
    notebook.button("Train on both").click()
    expect(notebook.field("num_processes")).to_have_value("2")
    expect(notebook.output.locator(".kit-gpus").first).to_contain_text("2 times as many pictures")
    if DRAWS:
        look(notebook, "gpus-both")
    notebook.button("Add to queue").click()
    on_each = notebook.output.locator(".kit-queue-gpus select").first
    expect(on_each).to_have_value("one run on each of GPUs 0 and 1")
    if DRAWS:
        look(notebook, "gpus-queue")
    notebook.button("Remove").click()
    notebook.button("Close").click()
    notebook.button("Train").click()
    numbers = notebook.output.locator(".kit-numbers").first
    expect(numbers).to_contain_text(STEP, timeout=LONG)
    notebook.restart()
    notebook.run_all()
    expect(state(notebook)).to_have_text("training", timeout=60_000)
    if DRAWS:
        look(notebook, "gpus-training")
    notebook.button("Stop").click()
    expect(state(notebook)).to_have_text("stopped", timeout=LONG)
    expect(notebook.button("Stop")).to_have_count(0)
    is_sound(notebook, "gpus-stopped")
    notebook.is_quiet()


@pytest.mark.long  # two trainings, each loads torch
def test_the_queue_is_filled_from_the_form_and_worked_off_beside_it(notebook, tmp_path):
    notebook.open([*cells(tmp_path, 40), "kit.queue()"]).run_all()
    is_there(notebook)
    notebook.button("Add to queue").click()
    queued = notebook.output.locator(".kit-queued")
    expect(queued.first).to_contain_text("zib-ball")
    if DRAWS:
        look(notebook, "queue-waiting")
    notebook.fill("output_name", "second")
    expect(notebook.output.locator(".kit-sum").first).to_contain_text("steps")
    notebook.button("Add to queue").click()
    expect(queued).to_have_count(2)
    notebook.button("Start").click()
    expect(queued.first).to_contain_text("step", timeout=LONG)
    notebook.button("Show").click()
    expect(state(notebook)).to_have_text("training", timeout=60_000)
    if DRAWS:
        look(notebook, "queue-at-work")
    notebook.button("Stop").click()
    expect(queued.first).to_contain_text("stopped", timeout=LONG)
    expect(queued.nth(1)).to_contain_text("done", timeout=LONG)
    if DRAWS:
        look(notebook, "queue-over")
    notebook.is_quiet()
