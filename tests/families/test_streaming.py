"""Weights on their way from a file to the device: mapped where that is the same, held once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kit import planning
from kit.bench.models import empty_part, fill, full_parts
from kit.devices import free_memory
from kit.families import base_model, loading
from kit.families.few_places import FewPlacesConv2d
from kit.families.loading import config_folder
from kit.families.resting import park
from kit.families.streaming import (
    ALIGNMENT,
    DTYPES,
    MATRIX_ALIGNMENT,
    PIECE,
    alignment_of,
    place,
    read_weights,
)
from kit.training.preparation import prepare
from tests.support.ldm import single_file_weights
from tests.support.parts import load_tiny, outcome
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, toy_settings

CPU = torch.device("cpu")


def written(path: Path, tensors: dict, *, off: int) -> Path:
    """A file whose values begin `off` bytes after a multiple of the alignment."""
    pad = 0
    while True:
        save_file(tensors, path, metadata={"pad": "x" * pad})
        with path.open("rb") as file:
            begin = int.from_bytes(file.read(8), "little") + 8
        if begin % ALIGNMENT == off:
            return path
        assert pad < ALIGNMENT, off
        pad += (off - begin) % ALIGNMENT  # headers end at multiples of 8, and so do these


@pytest.mark.parametrize("mapped", [True, False])
def test_every_kind_of_values_is_read_as_the_library_reads_it(tmp_path, mapped):
    tensors = {
        name: torch.arange(24).reshape(2, 3, 4).to(dtype) for name, dtype in DTYPES.items()
    } | {"none": torch.zeros(0, 3), "one": torch.tensor(4.6)}
    save_file(tensors, tmp_path / "f.safetensors")
    read = read_weights([tmp_path / "f.safetensors"], mapped=mapped).tensors
    expected = load_file(tmp_path / "f.safetensors")
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        ours, theirs = (each.flatten().view(torch.uint8) for each in (read[name], tensor))
        assert torch.equal(ours, theirs), name


def linear(weights) -> nn.Linear:
    module = nn.Linear(16, 16)
    module.load_state_dict(weights.tensors, assign=True)
    return module


@pytest.mark.parametrize("off", [0, 8, 16, 48])
def test_weights_stay_in_the_file_where_that_trains_to_the_same_bits(tmp_path, off):
    tensors = {"weight": torch.randn(16, 16), "bias": torch.randn(16)}
    weights = read_weights([written(tmp_path / "f.safetensors", tensors, off=off)], mapped=True)
    module = linear(weights)
    place(module, CPU, torch.float32, weights)

    def stays(name):
        return getattr(module, name).data_ptr() == weights.tensors[name].data_ptr()

    assert stays("bias")
    assert stays("weight") == (off != 8)
    assert module.weight.data_ptr() % MATRIX_ALIGNMENT == 0
    assert torch.equal(module.weight, tensors["weight"])
    assert not module.weight.requires_grad


def test_convolutions_and_norms_stay_in_the_file_wherever_they_begin(tmp_path):
    module = nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8))
    path = written(tmp_path / "f.safetensors", module.state_dict(), off=8)
    weights = read_weights([path], mapped=True)
    module.load_state_dict(weights.tensors, assign=True)
    place(module, CPU, torch.float32, weights)
    for name, weight in module.named_parameters():
        assert weight.data_ptr() == weights.tensors[name].data_ptr()


LAYERS = {  # (the layer, what goes in): the shapes of SD 1.5 at which kernels look at addresses
    "one row": (nn.Linear(1280, 320), (1, 1280)),
    "few rows": (nn.Linear(1280, 1280), (4, 1280)),
    "words": (nn.Linear(768, 320), (77, 768)),
    "convolution": (nn.Conv2d(320, 320, 3, padding=1), (1, 320, 8, 8)),
    "few places": (FewPlacesConv2d(1280, 640, 3, padding=1), (1, 1280, 2, 2)),
    "many channels": (FewPlacesConv2d(1920, 640, 3, padding=1), (1, 1920, 8, 8)),
    "1 x 1": (nn.Conv2d(640, 320, 1), (1, 640, 8, 8)),
    "groups": (nn.GroupNorm(32, 320), (1, 320, 8, 8)),
    "features": (nn.LayerNorm(320), (64, 320)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_to_the_same_bits_wherever_it_may_begin(name):
    layer, shape = LAYERS[name]
    layer.requires_grad_(False)
    own = {key: weight.clone() for key, weight in layer.named_parameters()}
    inputs, rows = torch.randn(shape), {}
    for off in range(0, ALIGNMENT, 4):
        for key, weight in own.items():
            if off % alignment_of(layer, weight) == 0:
                getattr(layer, key).data = begun(weight, off)
        given = inputs.clone().requires_grad_()
        output = layer(given)
        output.backward(torch.ones_like(output))
        rows[off] = (output.detach(), given.grad)
    for off, (output, gradient) in rows.items():
        assert torch.equal(output, rows[0][0]), off
        assert torch.equal(gradient, rows[0][1]), off


def begun(weight, off):
    """A copy that begins `off` bytes after a multiple of the alignment."""
    room = torch.empty(weight.nbytes + 2 * ALIGNMENT, dtype=torch.uint8)
    start = -room.data_ptr() % ALIGNMENT + off
    copied = room[start : start + weight.nbytes].view(weight.dtype).view(weight.shape)
    return copied.copy_(weight)


def test_pages_are_given_back_and_what_stays_is_there_all_the_same(tmp_path):
    tensors = {"weight": torch.randn(16, 16), "bias": torch.randn(16)}
    weights = read_weights([written(tmp_path / "f.safetensors", tensors, off=0)], mapped=True)
    weights.release()
    assert torch.equal(weights.tensors["weight"], tensors["weight"])


def test_a_part_that_rests_looks_into_its_file_again(tmp_path):
    tensors = {"weight": torch.randn(16, 16), "bias": torch.randn(16)}
    weights = read_weights([written(tmp_path / "f.safetensors", tensors, off=8)], mapped=True)
    module, inputs = linear(weights), torch.randn(3, 16)
    place(module, CPU, torch.float32, weights)
    assert module.weight.data_ptr() != weights.tensors["weight"].data_ptr()  # it begins elsewhere
    expected = module(inputs)
    park(module)
    for name in ("weight", "bias"):
        assert getattr(module, name).data_ptr() == weights.tensors[name].data_ptr()
    torch.testing.assert_close(module(inputs), expected)


@pytest.mark.parametrize(("mapped", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_what_is_not_in_a_file_as_it_is_used_stays_where_it_is(tmp_path, mapped, dtype):
    tensors = {"weight": torch.randn(16, 16), "bias": torch.randn(16)}
    weights = read_weights([written(tmp_path / "f.safetensors", tensors, off=8)], mapped=mapped)
    module = linear(weights)
    place(module, CPU, dtype, weights)
    before = module.weight.data_ptr()
    park(module)
    assert (module.weight.data_ptr(), module.weight.dtype) == (before, dtype)


def test_parts_that_were_only_needed_for_the_caches_rest(tmp_path, monkeypatch):
    # Effect tests in the same process read base models once, and copy them.
    monkeypatch.setattr(base_model, "load_family", loading.load_family)
    model, images = write_tiny(tmp_path / "model", "sd1", thin=True), draw_images(tmp_path / "i")
    for name in ("vae", "text_encoder", "unet"):
        (file,) = (model / name).glob("*.safetensors")
        written(file, load_file(file), off=8)

    def resting(**changes):
        settings = toy_settings(model, images, tmp_path / "out", **changes)
        ready, _ = outcome(prepare(planning.plan(settings)))
        ready.close()
        family = ready.family
        modules = (family.unet, family.vae, *family.text_encoders)
        return [all(w.data_ptr() == w.in_file.data_ptr() for w in m.parameters()) for m in modules]

    cached = {"cache_text_encoder_outputs": True, "text_encoder_lr": 0.0}
    assert resting(**cached) == [False, True, True]
    assert resting(cache_latents=False) == [False, False, False]
    assert resting(highvram=True, **cached) == [False, False, False]


def test_precisions_are_rounded_once_and_buffers_keep_theirs(tmp_path):
    module = nn.Linear(16, 16).half()
    module.register_buffer("scale", torch.full((1,), 1 / 3))
    expected = module.weight.detach().to(torch.bfloat16)
    place(module, CPU, torch.bfloat16, read_weights([], mapped=True))
    assert torch.equal(module.weight, expected)
    assert torch.equal(module.scale, torch.full((1,), 1 / 3))


def test_a_folder_is_mapped_and_an_older_one_left_to_its_library(tmp_path, monkeypatch):
    folder = write_tiny(tmp_path / "m", "sd1")
    asked, real = [], loading._from_folder
    monkeypatch.setattr(
        loading, "_from_folder", lambda *a, **k: asked.append(a[1].name) or real(*a, **k)
    )
    new = load_tiny(folder)
    assert asked == []
    file = next((folder / "vae").glob("*.safetensors"))
    old = {  # as diffusers named a VAE's attention until 2023
        name.replace(".to_q.", ".query.")
        .replace(".to_k.", ".key.")
        .replace(".to_v.", ".value.")
        .replace(".to_out.0.", ".proj_attn."): tensor
        for name, tensor in load_file(file).items()
    }
    assert old.keys() != load_file(file).keys()
    save_file(old, file)
    same = load_tiny(folder)
    assert asked == ["vae"]
    ours, theirs = new.vae.state_dict(), same.vae.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def held() -> int:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * 4 // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_holes_between_what_is_held_go_back_to_the_machine():
    torch.ones(2**22)  # a large piece that was freed: from now on smaller ones share a heap
    kept = [torch.ones(2**18) for _ in range(300)]
    last = torch.ones(2**10)  # above them, so that the heap cannot shrink from its end
    before = held()
    kept.clear()
    free_memory()
    assert before - held() > 200
    assert last.sum() == 2**10


def test_a_text_encoder_is_mapped_by_the_names_that_people_have(tmp_path, monkeypatch):
    folder = write_tiny(tmp_path / "m", "sd1", thin=True)
    expected = load_tiny(folder).text_encoder.state_dict()
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    plain = {name.removeprefix("text_model."): each for name, each in load_file(file).items()}
    save_file({f"text_model.{name}": each for name, each in plain.items()}, file)
    monkeypatch.delattr(loading, "_from_folder")  # it holds them twice
    found = load_tiny(folder).text_encoder.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


LOAD = """
import sys, threading, time, torch
from kit.basemodel import detect
from kit.families import Prediction
from kit.families.loading import load_family
from pathlib import Path

def held():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return [int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")]

file, dtype, done = detect(Path(sys.argv[1])), getattr(torch, sys.argv[2]), threading.Event()
before, most = held(), [0, 0]
def watch():
    while not done.wait(0.02):
        now = held()
        most[:] = [max(most[0], now[0]), max(most[1], sum(now))]
thread = threading.Thread(target=watch)
thread.start()
family = load_family(file, predicts=Prediction.EPSILON, device=torch.device("cpu"), dtype=dtype,
                     vae_dtype=dtype)
done.set()
thread.join()
parts = (family.unet, family.vae, *family.text_encoders)
weights = sum(weight.nbytes for part in parts for weight in part.parameters())
print(weights, most[0] - before[0], most[1] - sum(before))
"""


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """A single file of SD 1.5's real size in fp16: 2.1 GB of random weights."""
    root = tmp_path_factory.mktemp("full")
    parts = full_parts("sd1", device=CPU, dtype=torch.float16)
    parts["vae"] = empty_part(type(parts["vae"]), config_folder("sd1") / "vae")
    fill(parts["vae"], device=CPU, dtype=torch.float16)
    for name, module in parts.items():
        (root / "m" / name).mkdir(parents=True)
        shutil.copy(config_folder("sd1") / name / "config.json", root / "m" / name)
        save_file(module.state_dict(), root / "m" / name / "model.safetensors")
    del parts, module
    save_file(single_file_weights(root / "m"), root / "m.safetensors")
    shutil.rmtree(root / "m")
    yield root / "m.safetensors"
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of memory")
@pytest.mark.parametrize("dtype", [pytest.param("float16", marks=pytest.mark.long), "float32"])
def test_a_real_sized_model_is_never_held_twice(full_size, dtype):
    told = subprocess.run(
        [sys.executable, "-c", LOAD, full_size, dtype],
        check=True,
        capture_output=True,
        text=True,
    )
    weights, anonymous, resident = map(int, told.stdout.split())
    assert weights > 2e9
    assert anonymous < weights + 0.3e9
    assert resident < weights + 0.3e9 + 2 * PIECE  # mapped pages counted
