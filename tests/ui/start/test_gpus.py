"""Which GPUs train, as switches above the bar."""

import pytest

from kit.hosts import Gpu
from kit.settings import Machine, Settings
from kit.settings.rules import problems
from kit.ui.start import gpus as module
from kit.ui.start.gpus import Gpus, too_few, values_of

T4 = Gpu("Tesla T4", 16106)


class Form:
    """Takes what is chosen, as the form does."""

    def __init__(self, count):
        self.settings, self.taken = Settings(), []
        self.gpus = Gpus(self.take, [T4] * count)

    def take(self, values, what):
        self.taken.append(what)
        self.settings = self.settings.replace(**values)
        assert not problems(self.settings)
        self.gpus.follow(self.settings.machine)

    @property
    def chosen(self):
        return [n for n, switch in enumerate(self.gpus.switches) if switch.value]

    @property
    def asked(self):
        machine = self.settings.machine
        return machine.num_processes, machine.gpu_ids


def test_one_gpu_or_none_is_no_question():
    assert Form(1).gpus.root.layout.display == "none"
    assert Form(0).gpus.root.layout.display == "none"


def test_one_trains_until_more_are_chosen():
    form = Form(2)
    assert form.chosen == [0]
    assert "Here are 2 GPUs; one trains" in form.gpus.line.value
    form.gpus.all_button.click()
    assert form.taken == ["Train on both"]
    assert (form.chosen, form.asked) == ([0, 1], (2, ""))
    assert "2 times as many pictures" in form.gpus.line.value
    form.gpus.all_button.click()
    assert form.taken[1:] == ["Train on one"]
    assert (form.chosen, form.asked) == ([0], (1, ""))


def test_single_ones_are_switched():
    form = Form(4)
    assert form.gpus.all_button.description == "Train on all 4"
    form.gpus.switches[2].value = True
    assert form.asked == (2, "0,2")
    form.gpus.switches[0].value = False
    assert form.asked == (1, "2")
    form.gpus.switches[2].value = False  # somebody must train
    assert (form.chosen, form.asked) == ([2], (1, "2"))


def test_what_the_fields_say_is_shown():
    form = Form(3)
    for machine, chosen in (
        (Machine(multi_gpu=True), [0, 1, 2]),
        (Machine(num_processes=2, gpu_ids="2,0"), [0, 2]),
        (Machine(gpu_ids="1"), [1]),
        (Machine(num_processes=4), []),
        (Machine(gpu_ids="first"), []),
    ):
        form.gpus.follow(machine)
        assert form.chosen == chosen
    assert form.taken == []


def test_kaggle_is_named(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert Form(2).gpus.line.value.startswith("Kaggle lends this notebook 2 GPUs")


@pytest.mark.parametrize("numbers", [[0], [1], [0, 1], [1, 2]])
def test_values_ask_for_as_many_as_are_chosen(numbers):
    assert not problems(Settings().replace(**values_of(numbers)))


def test_more_than_there_are_has_a_button_for_as_many_as_there_are(monkeypatch):
    monkeypatch.setattr(module, "there", lambda: (T4, T4))
    remedy = too_few(Machine(num_processes=4))
    assert remedy.text == "num_processes = 4: 4 GPUs are wanted, and there are 2 on this machine."
    assert remedy.button == "Train on 2 GPUs"
    assert remedy.values["num_processes"] == 2
    assert too_few(Machine(num_processes=2)) is None
    assert too_few(Machine(gpu_ids="all")) is None
