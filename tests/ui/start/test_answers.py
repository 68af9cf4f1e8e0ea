from kit.catalog import FAMILIES
from kit.presets import presets
from kit.ui.start import device
from kit.ui.start.answers import GOALS, Answers, card_for, preset_for, repeats_for, wanted
from kit.ui.start.undo import STEPS, Undo


def test_every_aim_family_and_card_has_its_preset():
    for aim in GOALS.values():
        for family in FAMILIES:
            for megabytes in (None, 8_000, 16_106, 24_152, 80_000):
                assert preset_for(Answers(aim), family, megabytes) in presets()


def test_the_card_is_what_nvidia_smi_tells_in_megabytes():
    # RTX 3070, 12 GB, T4 (15,360 MiB), 20 GB, L4 (23,034 MiB), A100
    told = {None: "8gb", 8_590: "8gb", 12_884: "8gb", 16_106: "16gb", 21_469: "16gb",
            24_152: "24gb", 85_000: "24gb"}  # fmt: skip
    assert {megabytes: card_for(megabytes) for megabytes in told} == told


def test_few_pictures_of_a_flat_folder_are_repeated_more_often():
    assert [repeats_for(n) for n in (1, 6, 24, 100, 1000)] == [40, 40, 10, 2, 1]


def test_what_belongs_to_the_model_counts_more_than_the_preset():
    values = wanted(
        Answers("style", "zxink", ""),
        family="sdxl",
        megabytes=16_106,
        flat_pictures=0,
        of_model={"resolution": "768,768"},
    )
    assert values["resolution"] == "768,768"
    assert values["LoRA_type"] == "Kohya LoCon"
    assert values["output_name"] == "zxink"
    assert "dataset_repeats" not in values
    assert all("zxink" in line for line in values["sample_prompts"].splitlines())


def test_without_a_family_there_is_no_preset():
    asked = {"family": "", "megabytes": None, "flat_pictures": 24, "of_model": {}}
    assert wanted(Answers(), **asked) == {"dataset_repeats": 10}


def test_a_trigger_word_that_is_no_file_name_names_a_file_all_the_same():
    asked = {"family": "", "megabytes": None, "flat_pictures": 0, "of_model": {}}
    assert wanted(Answers(trigger_word='a/b: "c"'), **asked)["output_name"] == "a-b-c"
    assert "output_name" not in wanted(Answers(trigger_word="..."), **asked)
    assert wanted(Answers(trigger_word="zx" * 150), **asked)["output_name"] == "zx" * 20


def test_precisions_are_those_that_training_takes(monkeypatch):
    monkeypatch.setattr(device, "gpu", lambda: None)
    monkeypatch.setattr(device.sys, "platform", "linux")
    assert "without an NVIDIA GPU" in device.lacking("fp16")
    assert device.lacking("no") == device.lacking("bf16") == ""
    monkeypatch.setattr(device, "gpu", lambda: type("Card", (), {"name": "Tesla T4"}))
    for capability, best in ((7.5, "fp16"), (8.0, "bf16"), (9.0, "bf16"), (None, "fp16")):
        monkeypatch.setattr(device, "capability", lambda found=capability: found)
        assert device.precisions()[-1] == best
    monkeypatch.setattr(device, "capability", lambda: 7.5)
    assert device.lacking("bf16").startswith("bf16 does not work on this Tesla T4")


def test_ten_steps_can_be_taken_back_and_no_more():
    undo = Undo({})
    for i in range(STEPS + 3):
        undo.record({"epoch": str(i)}, f"change {i}")
    back = [undo.back() for _ in range(STEPS)]
    assert [step.before["epoch"] for step in back] == [str(i) for i in range(STEPS + 1, 1, -1)]
    assert undo.back() is None


def test_letters_typed_in_one_field_are_one_change():
    undo = Undo({})
    for text in ("z", "zx", "zxd"):
        undo.record({"output_name": text})
    undo.record({"output_name": "zxd", "epoch": "3"})
    assert undo.back().before == {"output_name": "zxd"}
    assert undo.back().before == {}
    assert undo.back() is None


def test_steps_of_a_file_that_are_damaged_are_left_out():
    undo = Undo({})
    undo.restore([["a", {"epoch": "3"}], ["b"], 7, [1, {}], ["c", []]])
    assert [step.what for step in undo.steps] == ["a"]
    Undo({}).restore(None)
