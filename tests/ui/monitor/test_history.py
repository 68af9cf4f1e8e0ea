from kit.events import Began, Cached, Finished, Loaded, Noticed, Sampled, Saved, Validated
from kit.ui.monitor.history import NOTICES_KEPT, History
from kit.ui.monitor.words import notes_of
from tests.ui.runs import stepped, whole_run


def loaded(from_step):
    return Loaded("SD", "cpu", "no", layers=1, weights=1, from_step=from_step)


def test_a_run_is_told_from_its_first_to_its_last_event():
    past = History()
    states = []
    for event in (Began("r", "cat", 2), Cached("latents", 1, 3), loaded(0), stepped(1)):
        past.add(event)
        states.append(past.state)
    assert states == ["starting", "preparing", "training", "training"]
    past.add(Finished(1, "asked to stop", "output/cat-step00000001.safetensors"))
    assert past.state == "stopped"
    assert past.newest_file == "output/cat-step00000001.safetensors"


def test_what_it_trains_on_is_said_in_known_words():
    past = History()
    past.add(loaded(0))
    assert past.base == "SD, cpu, fp32"


def test_speed_is_that_of_the_last_steps_and_tells_what_is_left():
    past = History()
    past.add_all(list(whole_run(40))[:12])
    assert past.step == 10
    assert past.seconds_per_step == 0.25
    assert past.seconds_left == 30 * 0.25


def test_a_resumed_run_forgets_what_it_lives_anew():
    past = History()
    past.add_all([Began("r", "cat", 9), loaded(0), *map(stepped, range(1, 7))])
    past.add(Sampled(6, 0, "six.png", "a cat", 1))
    past.add(Saved(6, 1, "cat-000001.safetensors"))
    past.add_all([Began("r", "cat", 9), loaded(4), stepped(5)])
    assert past.steps == [1, 2, 3, 4, 5]
    assert len(past.losses) == 5
    assert past.samples == {}
    assert past.saved == []


def test_a_resumed_run_keeps_what_a_person_asked_for():
    past = History()
    past.add_all([Began("r", "cat", 9), loaded(0), *map(stepped, range(1, 7))])
    typed = Sampled(6, 1, "typed.png", "a red square", 1, wished=True)
    wished = Saved(6, 1, "cat-step00000006.safetensors", wished=True)
    past.add_all([Sampled(6, 0, "six.png", "a cat", 1), typed, wished])
    past.add_all([Began("r", "cat", 9), loaded(4), stepped(5)])
    assert past.samples == {6: {1: typed}}
    assert past.saved == [wished]


def test_files_that_were_replaced_are_not_listed():
    past = History()
    past.add(Saved(1, 1, "out/cat-000001.safetensors"))
    past.add(Saved(2, 2, "out/cat-000002.safetensors", removed=("out/cat-000001.safetensors",)))
    past.add(Saved(2, 2, "out/cat-000002.safetensors"))
    assert [file.path for file in past.saved] == ["out/cat-000002.safetensors"]


def test_notices_are_told_once_and_do_not_pile_up():
    past = History()
    for i in [0, 0, *range(50)]:
        past.add(Noticed(f"notice {i}"))
    assert len(past.notices) == NOTICES_KEPT
    assert past.notices[-1] == "notice 49"


def test_notices_are_shown_with_the_forms_labels():
    past = History()
    past.add(Noticed("conv_dim has no effect: LoRA_type = Standard adapts no 3x3 convolutions"))
    shown = "Convolution Rank (Dimension) has no effect: LoRA type = Standard adapts no"
    assert shown in notes_of(past)
    assert past.notices[0].startswith("conv_dim has no effect")  # files keep the arguments' names


def test_validations_that_are_made_again_are_forgotten():
    past = History()
    for step in (2, 4):
        past.add(Validated(step, 0.1, 0.1, 0.2))
    past.add(loaded(3))
    assert list(past.validated) == [2]
