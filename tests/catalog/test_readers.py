"""Which programs read a LoRA, told by one column: catalog, plan, form and `kit inspect`."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from kit import catalog, planning
from kit.catalog import readers
from kit.catalog.readers import ReadBy
from kit.settings import Settings
from kit.tools.inspecting import describe, inspect
from kit.ui import Form
from tests.support.parts import paint


def read_by(**changes):
    return catalog.read_by(Settings().replace(**changes).flat() | changes).sentence


NO_DIFFUSERS = "A1111, Forge and ComfyUI read it; diffusers does not"
ONE_ALPHA = (
    "A1111, Forge and ComfyUI read it; diffusers gives attention, text encoders and layers without "
    "alpha the most frequent one"
)
OFT = "ComfyUI reads it; A1111 reads it over a base in 32 bits only; Forge and diffusers do not"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "A1111, Forge, ComfyUI and diffusers read it"),
        ({"LoRA_type": "LoRA-FA"}, "A1111, Forge, ComfyUI and diffusers read it"),
        ({"LoRA_type": "LyCORIS/DyLoRA"}, "A1111, Forge, ComfyUI and diffusers read it"),
        ({"LoRA_type": "LyCORIS/LoHa"}, NO_DIFFUSERS),
        ({"LoRA_type": "Kohya LoKr"}, NO_DIFFUSERS),
        ({"LoRA_type": "LyCORIS/LoKr", "use_tucker": True}, NO_DIFFUSERS),
        ({"LoRA_type": "LyCORIS/LoCon", "use_tucker": True}, NO_DIFFUSERS),
        ({"LoRA_type": "LyCORIS/LoCon", "train_norm": True}, NO_DIFFUSERS),
        (
            {"LoRA_type": "Standard", "train_norm": True},
            "A1111, Forge, ComfyUI and diffusers read it",
        ),
        ({"LoRA_type": "LyCORIS/GLoRA"}, "Forge and ComfyUI read it; A1111 and diffusers do not"),
        ({"LoRA_type": "LyCORIS/BOFT"}, OFT),
        ({"LoRA_type": "LyCORIS/Diag-OFT", "constraint": 0.01}, OFT),
        ({"LoRA_type": "LyCORIS/BOFT", "rescaled": True}, OFT),
        (
            {"LoRA_type": "LyCORIS/LoCon", "dora_wd": True},
            "A1111, Forge and ComfyUI read it; diffusers drops DoRA's magnitudes",
        ),
        ({"LoRA_type": "LyCORIS/LoHa", "dora_wd": True}, NO_DIFFUSERS),
        ({"block_alphas": "4," * 24 + "1"}, ONE_ALPHA),
        ({"block_alphas": "4," * 24 + "4.0"}, "A1111, Forge, ComfyUI and diffusers read it"),
        ({"rs_lora": True, "block_dims": "4," * 24 + "8"}, ONE_ALPHA),
        ({"block_dims": "0," * 24 + "8"}, "A1111, Forge, ComfyUI and diffusers read it"),
        ({"LoRA_type": "LyCORIS/LoHa", "block_alphas": "4," * 24 + "1"}, NO_DIFFUSERS),
    ],
)
def test_types_and_modifiers_are_told_in_one_sentence(changes, sentence):
    assert read_by(**changes) == sentence


def test_what_some_programs_read_otherwise_is_told_of_them():
    ia3 = read_by(LoRA_type="LyCORIS/iA3")
    assert ia3.startswith("A1111 reads it, but for the attention of OpenCLIP encoders")
    assert ia3.endswith("; Forge, ComfyUI and diffusers do not")
    assert "biases of q, k and v" in read_by(LoRA_type="LyCORIS/Native Fine-Tuning")
    rescaled = read_by(LoRA_type="LyCORIS/Diag-OFT", rescaled=True)
    assert "ComfyUI ignores the rescaling (14 % off)" in rescaled


def test_dora_of_outputs_is_wrong_everywhere():
    row = readers.EVERYWHERE.with_(readers.DORA, readers.DORA_OF_OUTPUTS)
    for program in ("A1111", "Forge", "ComfyUI"):
        assert f"{program} computes its DoRA wrongly" in row.sentence


def test_every_type_has_its_row_and_every_modifier_is_used_by_one():
    """The whole column, as it was measured: who reads, who does not."""
    no = {
        name: [p for p in readers.LABELS if getattr(row.read_by, p) == readers.NOT]
        for name, row in catalog.LORA_TYPES.items()
    }
    lora = ("Standard", "Kohya LoCon", "Kohya DyLoRA", "LoRA-FA", "LyCORIS/LoCon", "LyCORIS/DyLoRA")
    products = ("Kohya LoHa", "Kohya LoKr", "LyCORIS/LoHa", "LyCORIS/LoKr")
    expected = {name: [] for name in lora}
    expected |= {name: ["diffusers"] for name in (*products, "LyCORIS/Native Fine-Tuning")}
    expected |= {
        "LyCORIS/iA3": ["forge", "comfyui", "diffusers"],
        "LyCORIS/GLoRA": ["a1111", "diffusers"],
        "LyCORIS/Diag-OFT": ["forge", "diffusers"],
        "LyCORIS/BOFT": ["forge", "diffusers"],
    }
    assert no == expected
    for each in readers.MODIFIERS:
        assert each.setting == "wd_on_output" or any(
            each.setting in row.uses for row in catalog.LORA_TYPES.values()
        )


def test_nobody_at_all_is_a_sentence_too():
    nobody = ReadBy(**{field.name: readers.NOT for field in dataclasses.fields(ReadBy)})
    assert nobody.sentence == "A1111, Forge, ComfyUI and diffusers do not read it"


def test_the_plan_and_the_form_say_it(tmp_path):
    paint(tmp_path / "images" / "1_cat" / "a.png")
    settings = Settings().replace(
        train_data_dir=str(tmp_path / "images"), output_dir=str(tmp_path), LoRA_type="LyCORIS/iA3"
    )
    sentence = read_by(LoRA_type="LyCORIS/iA3")
    assert f"LoRA type LyCORIS/iA3: {sentence}" in planning.plan(settings).lines()
    form = Form()
    form.fields["LoRA_type"].value = "LyCORIS/GLoRA"
    assert read_by(LoRA_type="LyCORIS/GLoRA") in form.fields["LoRA_type"].note


ROLES = {
    "lora": ({"lora_up.weight": (8, 4), "lora_down.weight": (4, 8)}, "diffusers read it"),
    "tucker": (
        {
            "lora_up.weight": (8, 4, 1, 1),
            "lora_down.weight": (4, 8, 1, 1),
            "lora_mid.weight": (4, 4, 3, 3),
        },
        NO_DIFFUSERS,
    ),
    "input axis": (
        {"lora_up.weight": (8, 4), "lora_down.weight": (4, 8), "dora_scale": (1, 8)},
        "A1111, Forge and ComfyUI read it; diffusers drops",
    ),
    "output axis": (
        {"lora_up.weight": (8, 4), "lora_down.weight": (4, 8), "dora_scale": (8, 1)},
        "Forge computes its DoRA wrongly",
    ),
    "lokr": ({"lokr_w1": (2, 2), "lokr_w2": (4, 4)}, NO_DIFFUSERS),
    "lokr tucker": (
        {"lokr_w1": (2, 2), "lokr_w2_a": (2, 4), "lokr_w2_b": (2, 4), "lokr_t2": (2, 2, 3, 3)},
        "Forge fails on Tucker's core; ComfyUI drops the 3x3 layers",
    ),
    "oft": ({"oft_blocks": (4, 2, 2)}, OFT),
    "oft limited": ({"oft_blocks": (4, 2, 2), "alpha": ()}, "ComfyUI loses nearly all of it"),
    "oft rescaled": ({"oft_blocks": (4, 2, 2), "rescale": (8, 1)}, "ComfyUI ignores the rescaling"),
    "boft rescaled": ({"oft_blocks": (2, 4, 2, 2), "rescale": (8, 1)}, OFT),
    "ia3": ({"on_input": (), "weight": (8,)}, "Forge, ComfyUI and diffusers do not"),
    "glora": ({"a1.weight": (8, 4), "b1.weight": (8, 4)}, "A1111 and diffusers do not"),
    "full": ({"diff": (8, 8)}, "biases of q, k and v"),
    "norm": ({"w_norm": (8,), "b_norm": (8,)}, NO_DIFFUSERS),
}


@pytest.mark.parametrize("case", ROLES)
def test_inspect_says_it_by_what_a_file_holds(tmp_path, case):
    roles, words = ROLES[case]
    tensors = {f"lora_unet_x.{role}": torch.ones(shape) for role, shape in roles.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    report = inspect(tmp_path / "a.safetensors")
    assert words in report["read_by"]
    assert "  read by     " in describe(report)


ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("odd", "alpha", "is_told"),
    [
        (ATTENTION, 2, True),
        (ATTENTION, 1, False),
        (ATTENTION, None, True),
        ("lora_unet_mid_block_resnets_0_conv1", 2, False),
        ("lora_unet_mid_block_resnets_0_conv1", None, True),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", 2, True),
    ],
)
def test_inspect_says_where_diffusers_takes_another_alpha(tmp_path, odd, alpha, is_told):
    """Two others of each part have the alpha 1; the rank is 4."""
    part = "_".join(odd.split("_")[:2])
    alphas = {f"{part}_{number}_attn1": 1 for number in range(2)} | {odd: alpha}
    tensors = {}
    for name, value in alphas.items():
        tensors |= {f"{name}.lora_up.weight": torch.ones(8, 4)}
        tensors |= {f"{name}.lora_down.weight": torch.ones(4, 8)}
        if value is not None:
            tensors[f"{name}.alpha"] = torch.tensor(float(value))
    save_file(tensors, tmp_path / "a.safetensors")
    found = inspect(tmp_path / "a.safetensors")["read_by"]
    assert (found == ONE_ALPHA) is is_told


@pytest.mark.parametrize(
    ("kind", "precision", "told"),
    [
        ("LyCORIS/LoKr", "bf16", True),
        ("LyCORIS/LoKr", "fp16", False),
        ("Standard", "bf16", False),
        ("LyCORIS/GLoRA", "bf16", False),
    ],
)
def test_a_file_in_bf16_that_a1111_rounds_the_base_to_is_noticed(tmp_path, kind, precision, told):
    paint(tmp_path / "images" / "1_cat" / "a.png")
    changes = {"LoRA_type": kind, "save_precision": precision}
    folders = {"train_data_dir": str(tmp_path / "images"), "output_dir": str(tmp_path)}
    notices = planning.plan(Settings().replace(**changes, **folders)).notices
    assert any("A1111 rounds" in text for text in notices) is told
