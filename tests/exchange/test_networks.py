"""LoRA types in the words of sd-scripts."""

import pytest

from kit import catalog
from kit.exchange import Verdict, load_any, networks
from kit.exchange.known import network_args
from kit.exchange.networks import arguments_of, kind_of, module_of
from kit.settings import Settings


@pytest.mark.parametrize(
    ("module", "arguments", "kind"),
    [
        ("networks.lora", {}, "Standard"),
        ("networks.lora", {"conv_dim": "4"}, "Kohya LoCon"),
        ("networks.lora", {"conv_dim": "0"}, "Standard"),
        ("networks.lora", {"conv_block_dims": "1,2"}, "Kohya LoCon"),
        ("networks.lora_fa", {"conv_dim": "4"}, "LoRA-FA"),
        ("networks.dylora", {"unit": "4"}, "Kohya DyLoRA"),
        ("lycoris.kohya", {}, "LyCORIS/LoCon"),
        ("lycoris.kohya", {"algo": "lora"}, "LyCORIS/LoCon"),
        ("lycoris.kohya", {"algo": "LoKr"}, "LyCORIS/LoKr"),
        ("lycoris.kohya", {"algo": "full"}, "LyCORIS/Native Fine-Tuning"),
        ("lycoris.kohya", {"algo": "something"}, None),
        ("networks.lora_flux", {}, None),
    ],
)
def test_a_module_and_its_arguments_are_a_lora_type(module, arguments, kind):
    assert kind_of(module, arguments) == kind


@pytest.mark.parametrize("kind", catalog.LORA_TYPES)
def test_every_lora_type_of_ours_goes_out_and_comes_back(kind):
    settings = Settings().replace(LoRA_type=kind)
    module, chosen = module_of(kind)
    arguments = arguments_of(settings)
    assert chosen.items() <= arguments.items()
    assert kind_of(module, arguments) == kind
    assert not {"unit", "block_size"} <= set(arguments)
    assert all(" " not in text for text in arguments.values())


@pytest.mark.parametrize("argument", network_args())
def test_every_argument_of_a_network_has_its_line(argument):
    _, report = load_any(f"train_network.py --network_args conv_dim=4 {argument}=7")
    (line, *_) = [line for line in report.lines if line.key == f"network_args.{argument}"]
    assert line.verdict is not Verdict.UNKNOWN
    if networks.setting_of(argument) is None:
        assert "not supported" in line.told


def test_arguments_of_other_families_networks_are_told_so():
    _, report = load_any("train_network.py --network_args train_blocks=all conv_dimm=3")
    blocks, wrong = report.lines[1:]
    assert "another model family" in blocks.told
    assert wrong.verdict is Verdict.UNKNOWN
    assert "did you mean" in wrong.told
