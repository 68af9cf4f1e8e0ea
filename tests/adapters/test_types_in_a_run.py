"""Every LoRA type in a whole small run: trained, saved, broken off and resumed, and continued."""

import functools
import json

import pytest
import torch

from kit import catalog
from kit.adapters.network import attach, parts_of
from kit.lorafile.tensors import read_header
from kit.settings import NetworkSettings
from kit.tools.inspecting import inspect
from tests.support.parts import load_tiny
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

EVERY = pytest.mark.parametrize("kind", catalog.LORA_TYPES)
CALLED = {
    "LoHa": "LoHa",
    "LoKr": "LoKr",
    "iA3": "IA3",
    "GLoRA": "GLoRA",
    "Diag-OFT": "OFT",
    "BOFT": "OFT",
    "Fine-Tuning": "full difference",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"), count=2)


DROPOUTS = {"network_dropout": 0.1, "rank_dropout": 0.1}


def settings_of(model, images, out, kind, **changes):
    sizes = {"network_dim": 10, "conv_dim": 10, "epoch": 1}
    return toy_settings(model, images, out, **{"LoRA_type": kind} | sizes | changes)


@pytest.fixture
def asked(model, images, tmp_path):
    return lambda folder, kind, **changes: settings_of(
        model, images, tmp_path / folder, kind, **changes
    )


@pytest.fixture(scope="module")
def straight(model, images, tmp_path_factory):
    """Of every type one run that was not left: its losses, and the folder of its file."""

    @functools.cache
    def of(kind):
        out = tmp_path_factory.mktemp("straight")
        return losses(run(settings_of(model, images, out, kind, **DROPOUTS))), out

    return of


@EVERY
def test_it_trains_is_saved_and_resumed_as_if_never_broken_off(
    kind, asked, model, straight, tmp_path
):
    whole, out = straight(kind)
    told = losses(leave_after(2, asked("b", kind, **DROPOUTS)))
    assert told + losses(run(asked("b", kind, **DROPOUTS))) == whole
    start = lora(out)
    assert same(start, lora(tmp_path / "b"))

    path = out / "toy.safetensors"
    metadata = read_header(path).metadata
    assert metadata["ss_network_module"] == catalog.LORA_TYPES[kind].network_module
    if kind.startswith("LyCORIS/"):
        assert json.loads(metadata["ss_network_args"])["algo"]
    report = inspect(path)
    assert report["kind"] == CALLED.get(kind.split("/")[-1].split()[-1], report["kind"])
    assert not report["notices"]

    # Continued, it does what it did: the file's own shapes, and other alphas.
    family = load_tiny(model)
    own = NetworkSettings(LoRA_type=kind, dim_from_weights=True, network_weights="a file")
    network = attach(own, family, learns=parts_of(family), seed=1, start=start)
    again = network.tensors()
    assert again.keys() == start.keys()
    assert all(torch.allclose(again[key].float(), start[key].float(), atol=1e-6) for key in start)
    network.detach_hooks()


@EVERY
def test_norms_are_limited_where_the_type_says_so_and_nowhere_else(asked, straight, tmp_path, kind):
    run(asked("limited", kind, **DROPOUTS, scale_weight_norms=1e-4))
    is_read = "scale_weight_norms" in catalog.LORA_TYPES[kind].uses
    assert same(lora(straight(kind)[1]), lora(tmp_path / "limited")) is not is_read


@pytest.mark.parametrize(
    ("kind", "changes", "noted"),
    [
        ("LyCORIS/LoKr", {"use_tucker": True, "factor": 2, "network_dim": 2}, "lokr_t2"),
        ("LyCORIS/Diag-OFT", {"constraint": 1e-5}, "constraint"),
        ("LyCORIS/BOFT", {"constraint": 1e-5}, "constraint"),
    ],
)
def test_what_is_stored_for_other_programs_goes_on_as_it_was(
    kind, changes, noted, asked, tmp_path, model
):
    sizes = {"network_dim": 10} | changes
    changes = sizes | {"conv_dim": sizes["network_dim"], "save_precision": "float"}
    run(asked("a", kind, **changes))
    path = tmp_path / "a" / "toy.safetensors"
    first = read_header(path).metadata["lorakit_network"]
    assert noted in first
    own = {"network_weights": str(path), "dim_from_weights": True, "save_precision": "float"}
    run(asked("b", kind, unet_lr=1e-12, text_encoder_lr=1e-12, **own))
    again, before = lora(tmp_path / "b"), lora(tmp_path / "a")
    assert again.keys() == before.keys()
    assert all(torch.allclose(again[key], before[key], atol=1e-6) for key in before)
    assert json.loads(
        read_header(tmp_path / "b" / "toy.safetensors").metadata["lorakit_network"]
    ) == json.loads(first)
    if kind == "LyCORIS/LoKr":
        assert any(key.endswith("lokr_w2") for key in before)
        assert not any(key.endswith("lokr_t2") for key in before)
    else:
        assert all(t == 0 for key, t in before.items() if key.endswith("alpha"))
