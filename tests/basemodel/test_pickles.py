"""Torch files are read as torch reads them, and nothing that they say is run."""

import collections
import pickle
import sys
import zipfile

import pytest
import torch

from kit import demo
from kit.basemodel import detect
from kit.basemodel.pickles import read_tensors, state_of
from kit.errors import ModelError
from kit.families.base_model import find_model
from kit.lorafile.tensors import read_lora
from kit.settings import Settings
from tests.support.ldm import single_file_weights

FORMATS = pytest.mark.parametrize("modern", [True, False], ids=["zip", "before torch 1.6"])
READINGS = pytest.mark.parametrize("mapped", [True, False])


def saved(path, contents, *, modern=True):
    torch.save(contents, path, _use_new_zipfile_serialization=modern)
    return path


def varied():
    """Every type, views that share a storage, turned and empty ones."""
    values = torch.arange(24).reshape(4, 6)
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64)
    types += (torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    found = {str(dtype): values.to(dtype) for dtype in types}
    found["one byte"] = torch.tensor([1], dtype=torch.uint8)  # what follows is not aligned
    shared = torch.randn(5, 7)
    found |= {"shared": shared, "row": shared[2], "turned": shared.T, "part": shared[1:3, ::2]}
    found |= {"scalar": torch.tensor(2.5), "none": torch.empty(0, 3)}
    found["parameter"] = torch.nn.Parameter(torch.randn(3, 3))
    return found


@READINGS
@FORMATS
def test_every_tensor_is_what_torch_reads(tmp_path, modern, mapped):
    path = saved(tmp_path / "a.pt", varied(), modern=modern)
    found, expected = read_tensors(path, mapped=mapped), torch.load(path, weights_only=True)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor.detach()), name
        assert tuple(state_of(path)[name].shape) == tuple(tensor.shape), name


@READINGS
def test_eight_bit_floats_are_read(tmp_path, mapped):
    tensors = {"a": torch.randn(4, 5).to(torch.float8_e4m3fn)}
    path = saved(tmp_path / "a.pt", tensors)
    found = read_tensors(path, mapped=mapped)["a"]
    assert found.dtype == torch.float8_e4m3fn
    assert torch.equal(found.float(), tensors["a"].float())


def test_an_ordered_state_dict_with_its_metadata_is_read(tmp_path):
    layer = torch.nn.Linear(3, 2)
    state = layer.state_dict()
    assert isinstance(state, collections.OrderedDict)
    assert hasattr(state, "_metadata")
    path = saved(tmp_path / "a.pt", {"state_dict": state})
    assert torch.equal(read_tensors(path, mapped=True)["weight"], layer.weight)


# -------------------------------------------------------------------- what else lies in a pickle

CALLED = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()

class ModelCheckpoint:
    def __init__(self, *args):
        pathlib.Path(__file__).with_name("called").touch()
    def __setstate__(self, state):
        pathlib.Path(__file__).with_name("called").touch()

def act(*args):
    pathlib.Path(__file__).with_name("called").touch()
    return {}
"""


class ByReduce:
    """Pickles as a call of the callback module's function."""

    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        return self.act, (1, 2), {"state": 1}, iter([3]), iter([("a", 4)])


@pytest.fixture
def lightning(tmp_path, monkeypatch):
    """A checkpoint as Lightning writes it, and the traces that an import or a call would leave."""
    (tmp_path / "callbacks_of_a_trainer.py").write_text(CALLED)
    monkeypatch.syspath_prepend(tmp_path)
    import callbacks_of_a_trainer as trainer

    kind = trainer.ModelCheckpoint
    contents = {
        "epoch": 3,
        "callbacks": {kind: {"best": kind(), "score": torch.tensor(0.5)}},
        "lr_schedulers": [ByReduce(trainer.act), {1, 2}, b"bytes", 3.5, torch.Size([1])],
        "state_dict": single_file_weights(demo.BASE),
    }

    def write(name, *, modern=True, **more):
        sys.modules["callbacks_of_a_trainer"] = trainer  # pickle looks whether a class is there
        path = saved(tmp_path / name, contents | more, modern=modern)
        del sys.modules["callbacks_of_a_trainer"]
        traces = [tmp_path / "imported", tmp_path / "called"]
        for trace in traces:
            trace.unlink(missing_ok=True)
        return path, traces

    yield write
    sys.modules.pop("callbacks_of_a_trainer", None)


@FORMATS
def test_a_checkpoint_with_callbacks_is_loaded_and_nothing_is_imported_or_called(lightning, modern):
    path, traces = lightning("model.ckpt", modern=modern)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    settings = Settings().replace(pretrained_model_name_or_path=str(path))
    file, _ = find_model(settings)
    assert file.family == "sd1"
    tensors = read_tensors(path, mapped=True)
    for name, tensor in single_file_weights(demo.BASE).items():
        assert torch.equal(tensors[name], tensor), name
    assert not any(trace.exists() for trace in traces)
    assert "callbacks_of_a_trainer" not in sys.modules


def test_a_lora_beside_callbacks_is_read(lightning):
    name = "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"
    path, traces = lightning("lora.pt", state_dict={name: torch.ones(2, 2)})
    assert read_lora(path).tensors.keys() == {name}
    assert not any(trace.exists() for trace in traces)


def test_names_are_imported_by_no_opcode(tmp_path):
    """GLOBAL, INST, STACK_GLOBAL, OBJ and NEWOBJ, each with a module that is not there."""
    module = b"no_such_module_anywhere"
    streams = {
        "GLOBAL and REDUCE": b"(c" + module + b"\nf\n(I1\ntR.",
        "INST": b"(i" + module + b"\nf\n.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x17" + module + b"\x8c\x01f\x93)R.",
        "OBJ": b"(c" + module + b"\nf\nI1\no.",
        "NEWOBJ and BUILD": b"\x80\x02c" + module + b"\nf\n)\x81}b.",
    }
    seen = []
    sys.addaudithook(lambda event, args: seen.append(args[0]) if event == "import" else None)
    for name, stream in streams.items():
        path = tmp_path / "a.ckpt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", stream)
        assert state_of(path) == {}, name
    assert not any(module.decode() in str(name) for name in seen)


def test_attributes_of_the_constructors_cannot_be_set(tmp_path):
    """BUILD would set attributes of what was named before it."""
    streams = [
        b"c" + name + b"\n}X\x01\x00\x00\x00aI1\nsb."
        for name in (b"torch._utils\n_rebuild_tensor_v2", b"torch\nFloatStorage")
    ]
    streams.append(b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsI1\nsb.")
    for stream in streams:
        path = tmp_path / "a.ckpt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", stream)
        assert state_of(path) == {}
    test_every_tensor_is_what_torch_reads(tmp_path, modern=True, mapped=True)


# ------------------------------------------------------------------------------------ broken ones


@FORMATS
@pytest.mark.parametrize("levels", [1, 3])
def test_a_file_that_contains_itself_ends_with_an_error(tmp_path, modern, levels):
    outer = {"epoch": 1}
    inner = outer
    for _ in range(levels - 1):
        inner["state_dict"] = {}
        inner = inner["state_dict"]
    inner["state_dict"] = outer
    path = saved(tmp_path / "a.ckpt", outer, modern=modern)
    with pytest.raises(ModelError, match="contains itself"):
        detect(path)


@FORMATS
def test_a_file_that_broke_off_is_told(tmp_path, modern):
    path = saved(tmp_path / "a.ckpt", {"a": torch.randn(50, 50)}, modern=modern)
    whole = path.read_bytes()
    for kept in (0.2, 0.5, 0.95):
        path.write_bytes(whole[: int(len(whole) * kept)])
        with pytest.raises(ModelError, match="damaged, or no file of weights"):
            state_of(path)


def test_a_tensor_that_reaches_beyond_its_values_is_refused(tmp_path):
    path = saved(tmp_path / "a.ckpt", {"a": torch.arange(6.0).reshape(2, 3)})
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    table = parts["a/data.pkl"]
    assert table.count(b"K\x02K\x03\x86") == 1, "the shape"
    parts["a/data.pkl"] = table.replace(b"K\x02K\x03\x86", b"K\x09K\x09\x86")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ModelError, match="beyond its values"):
        state_of(path)


def test_a_compiled_program_is_not_opened(tmp_path):
    path = saved(tmp_path / "a.pt", {"a": torch.ones(2)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/constants.pkl", b"(t.")
    with pytest.raises(ModelError, match="TorchScript"):
        state_of(path)
