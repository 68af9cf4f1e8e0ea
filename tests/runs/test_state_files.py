"""States and caches on disk: flipped bits are noticed, and a kill leaves a whole state."""

import os
import random

import pytest
import safetensors.torch
import torch

from kit.caching.disk import DiskCache
from kit.runs.record import RunRecord, read_record, write_record
from kit.runs.run import choose_run
from kit.runs.state_files import BEFORE, STATE_FILE, damage, replace_state
from kit.training.state_file import Damaged, read_state, write_state


def state_of(step):
    torch.manual_seed(step)
    return {
        "step": step,
        "network": {"up": torch.randn(7, 5), "down": torch.randn(5, 7).bfloat16()},
        "optimizer": {"state": {0: {"exp_avg": torch.randn(35)}}, "param_groups": [{"lr": 0.1}]},
        "schedule": {"last_epoch": step},
        "scaler": {},
        "losses": [0.1, 0.2],
    }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_a_state_is_noticed_or_changes_nothing(tmp_path):
    path = tmp_path / "state.pt"
    write_state(path, state_of(3))
    data, whole, unseen = path.read_bytes(), read_state(path), 0
    for bit in random.Random(1).sample(range(8 * len(data)), 600):
        path.write_bytes(flipped(data, bit))
        try:
            assert same(read_state(path), whole), f"bit {bit} changed the state"
            unseen += 1  # a time, a filling byte
        except Damaged:
            continue
    assert unseen < 600


def test_a_flip_within_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "state.pt"
    state = state_of(3)
    write_state(path, state)
    data = path.read_bytes()
    at = data.find(state["network"]["up"].numpy().tobytes())
    for bit in range(8 * at, 8 * (at + 35 * 4), 37):
        path.write_bytes(flipped(data, bit))
        with pytest.raises(Damaged, match="not what was written"):
            read_state(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"a text instead", b"PK\x03\x04", b"\x80\x04N."],
    ids=["", "text", "zip", "pickle"],
)
def test_what_is_no_state_is_told_as_that(tmp_path, data):
    path = tmp_path / "state.pt"
    path.write_bytes(data)
    with pytest.raises(Damaged):
        read_state(path)
    assert damage(path)


def test_a_torch_file_of_something_else_is_told_without_torchs_advice(tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"a": 1}, path)
    with pytest.raises(Damaged, match="something else than a state"):
        read_state(path)
    torch.save({"a": random.Random}, path)
    with pytest.raises(Damaged) as told:
        read_state(path)
    assert "weights_only" not in str(told.value)


def test_the_state_of_before_stays_and_the_one_before_that_goes(tmp_path):
    path = tmp_path / STATE_FILE
    for step in (1, 2, 3):
        replace_state(path, lambda part, step=step: write_state(part, state_of(step)))
    assert sorted(each.name for each in tmp_path.iterdir()) == [STATE_FILE, BEFORE]
    assert (read_state(path)["step"], read_state(path.with_name(BEFORE))["step"]) == (3, 2)


@pytest.mark.parametrize("refused", ["write", "fsync", "replace 1", "replace 2"])
def test_a_kill_between_any_two_calls_leaves_a_whole_state(tmp_path, monkeypatch, refused):
    path = tmp_path / STATE_FILE
    replace_state(path, lambda part: write_state(part, state_of(1)))
    child = os.fork()
    if child == 0:  # as kill -9: nothing is tidied up
        calls = iter(range(1, 9))
        real = type(path).replace

        def replace(self, target):
            if refused == f"replace {next(calls)}":
                os._exit(9)
            return real(self, target)

        def write(part):
            if refused == "write":
                os._exit(9)
            write_state(part, state_of(2))

        type(path).replace = replace
        if refused == "fsync":
            os.fsync = lambda _: os._exit(9)
        replace_state(path, write)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = [read_state(p)["step"] for p in (path, path.with_name(BEFORE)) if p.exists()]
    assert left == [1]


def choose(folder):
    return choose_run(str(folder), "cat", ending="safetensors", fingerprint="abc")[0]


def leave(folder, *states):
    place = folder / "cat.run"
    (place / "state").mkdir(parents=True)
    for name in states:
        (place / "state" / name).touch()
    write_record(place, RunRecord("abc", 7, 20))
    write_record(place / "state", RunRecord("abc", 7, 20))
    return place


@pytest.mark.parametrize(
    ("states", "step"),
    [([STATE_FILE], 20), ([BEFORE], 20), ([], 0)],
    ids=["newest", "other", "none"],
)
def test_a_run_goes_on_where_it_has_a_state_and_else_begins_anew(tmp_path, states, step):
    leave(tmp_path, *states)
    run = choose(tmp_path)
    assert (run.name, run.from_step, run.seed) == ("cat", step, 7)


@pytest.mark.parametrize("text", [None, "", "{", "[1]"])
def test_a_record_that_is_lost_is_read_from_beside_the_state(tmp_path, text):
    place = leave(tmp_path, STATE_FILE)
    (place / "run.json").unlink()
    if text is not None:
        (place / "run.json").write_text(text)
    assert read_record(place) == RunRecord("abc", 7, 20)
    assert choose(tmp_path).from_step == 20


def test_a_record_names_what_is_owed_and_only_then(tmp_path):
    write_record(tmp_path, RunRecord("abc", 7, 20))
    assert "owed" not in (tmp_path / "run.json").read_text(), "older versions do not know it"
    write_record(tmp_path, RunRecord("abc", 7, 20, owed=("files",)))
    assert read_record(tmp_path).owed == ("files",)


# -------------------------------------------------------------------------------------- caches


def entry():
    torch.manual_seed(0)
    return {"mean": torch.randn(4, 8, 8), "logvar": torch.randn(4, 8, 8)}


def test_every_flipped_bit_of_a_cache_entry_is_noticed_or_changes_nothing(tmp_path):
    DiskCache(tmp_path, "latents").put("key", entry())
    path = tmp_path / "latents" / "key.safetensors"
    data = path.read_bytes()
    header = 8 * (8 + int.from_bytes(data[:8], "little"))
    bits = [*range(header), *random.Random(1).sample(range(header, 8 * len(data)), 200)]
    noticed = 0
    for bit in bits:
        path.write_bytes(flipped(data, bit))
        cache = DiskCache(tmp_path, "latents")
        found = cache.get("key", "mean", "logvar")
        if found is None:
            noticed += 1
        else:
            assert same(found, entry()), f"bit {bit} changed what was kept"
    assert noticed > len(bits) * 0.9


def test_a_damaged_entry_is_told(tmp_path):
    cache = DiskCache(tmp_path, "latents")
    cache.put("key", entry())
    path = tmp_path / "latents" / "key.safetensors"
    path.write_bytes(flipped(path.read_bytes(), 8 * path.stat().st_size - 1))
    assert cache.get("key", "mean") is None
    (told,) = cache.notice()
    assert "1 entries of the cache" in told.text
    assert "made anew, such as key.safetensors" in told.text


@pytest.mark.parametrize(("value", "is_believed"), [(1.0, True), (float("nan"), False)])
def test_an_entry_without_checksum_is_believed_where_it_is_finite(tmp_path, value, is_believed):
    (tmp_path / "latents").mkdir()
    old = {"mean": torch.full((2, 2), value)}
    safetensors.torch.save_file(old, tmp_path / "latents" / "key.safetensors")
    assert (DiskCache(tmp_path, "latents").get("key", "mean") is not None) == is_believed
