"""A LoRA type is one row: the network, the size in the plan and kohya's words follow from it."""

import inspect

import pytest
from torch import nn

from kit import catalog
from kit.adapters.lora import Lora
from kit.adapters.network import Size, make_adapter
from kit.catalog import LoraType
from kit.exchange.networks import arguments_of, kind_of
from kit.families import Layer
from kit.planning.lora_size import layer_shapes, network_size
from kit.settings import Settings
from kit.settings.targets import PRESETS


class Mine(Lora):
    """A type that nothing but its row tells of."""

    def __init__(self, layer, *, factor=-1, **options):
        super().__init__(layer, **options)
        self.factor = factor


def shapes(weight, rank, *, factor=-1):
    return {"mine": (rank, factor), "mark": ()}


ROW = LoraType(
    f"{__name__}:Mine",
    "networks.mine",
    False,
    ("network_dim", "network_alpha", "network_dropout", "factor"),
    f"{__name__}:shapes",
)


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setitem(catalog.LORA_TYPES, "Standard", ROW)
    return Settings().replace(network_dim=4, factor=5, network_dropout=0.25, decompose_both=True)


def test_its_adapter_is_made_with_the_settings_it_names(mine):
    layer = Layer("layer", nn.Linear(8, 8), "unet", True)
    adapter = make_adapter(mine.network, layer, Size(4, 2.0), None, PRESETS["full"])
    assert type(adapter).__name__ == "Mine"
    assert (adapter.factor, adapter.dropout) == (5, 0.25)


def test_its_size_follows_from_its_shapes(mine):
    count = sum(shape.count for shape in layer_shapes("sd1") if shape.in_transformer)
    size = network_size(mine, "sd1")
    assert (size.layers, size.weights) == (count, count * 4 * 5)


def test_its_words_in_sd_scripts_are_the_rows(mine):
    assert kind_of("networks.mine", {}) == "Standard"
    assert arguments_of(mine)["factor"] == "5"
    assert "decompose_both" not in arguments_of(mine)


@pytest.mark.parametrize("row", catalog.LORA_TYPES.values(), ids=catalog.LORA_TYPES)
def test_an_adapter_is_made_with_nothing_of_the_whole_network(row):
    classes = catalog.load(row.code).__mro__
    takes = {name for each in classes for name in inspect.signature(each.__init__).parameters}
    assert set(row.arguments) <= takes
    # What a class takes beside the settings: its place, its size, a file's shapes.
    beside = {"self", "layer", "shapes", "rank", "alpha", "found"}
    kinds = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    named = {
        name
        for each in classes
        if each.__module__.startswith("kit.")
        for name, parameter in inspect.signature(each.__init__).parameters.items()
        if parameter.kind not in kinds
    }
    read_by_some = {name for other in catalog.LORA_TYPES.values() for name in other.arguments}
    assert named - beside <= read_by_some
