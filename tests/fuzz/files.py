"""Readers of files of bytes: weights, pickles, caches, pictures, zips."""

import io
import json
import pickle
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image
from safetensors.torch import save

from kit.basemodel import detect
from kit.basemodel.pickles import read_tensors, state_of
from kit.basemodel.preflight import found_model
from kit.dataset.data_sets import Words
from kit.dataset.files import measure
from kit.dataset.incoming import Source
from kit.dataset.pixels import open_upright
from kit.dataset.receiving import receive
from kit.exchange import load_any
from kit.lorafile.tensors import read_header, read_lora
from kit.planning.ladder import Footing
from kit.runs.run import Run
from kit.sinks.model_card import model_card, trigger_words
from kit.tools.inspecting import describe, inspect
from kit.training.checkpoint import Checkpoint
from kit.training.guardian import Guardian
from kit.training.kept import Losses
from tests.fuzz.running import OUT
from tests.fuzz.stage import data_set, each_of, planned, settings_in, written
from tests.fuzz.values import damaged, hostile, json_bytes, mutated
from tests.optim.resuming import learn, optimization_of

GOLDEN = Path(__file__).parents[1] / "golden"
LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
FOREIGN = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
BASE = (
    "model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
)  # fmt: skip

KINDS = (
    ("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "bmp"),
    ("TIFF", "tif"), ("AVIF", "avif"), ("HEIF", "heic"),
)  # fmt: skip
NAMES = (
    "a.png", "2_ball/b.png", "2_ball/b.txt", "../x.png", "/y.png", "c:\\z.jpg", "CON.png",
    "n" * 300 + ".png", "a\\b\\c.webp", "é.png", ".hidden.png", "x/", "\ud800.png",
)  # fmt: skip


def _safetensors(rng, tensors, metadata):
    """A file whose table is mutated, its length told right or not."""
    data = save(tensors)
    end = 8 + int.from_bytes(data[:8], "little")
    table = {**json.loads(data[8:end]), "__metadata__": metadata}
    if rng.random() < 0.6:
        table = mutated(rng, table, 2)
    head = json_bytes(rng, table)
    length = len(head) if rng.random() < 0.95 else rng.choice((0, 1, 2**40, 2**63, len(head) + 8))
    values = damaged(rng, data[end:])
    return length.to_bytes(8, "little") + head + values


@cache
def _metadata():
    told = json.loads((GOLDEN / "metadata_example.json").read_text("utf-8"))
    told = told if isinstance(told, dict) else {}
    texts = {key: value for key, value in told.items() if isinstance(value, str)}
    return {
        "ss_network_module": "networks.lora", "ss_network_args": '{"conv_dim": "4"}',
        "ss_tag_frequency": '{"2_ball": {"red": 3}}',
        "ss_bucket_info": '{"buckets": {"0": {"count": 2}}}',
        "ss_datasets": '[{"resolution": [64, 64], "subsets": [{"keep_tokens": 1}]}]',
        "ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.1)", "ss_resolution": "(64, 64)",
        "lorakit_settings": '{"network_dim": 8, "LoRA_type": "Standard"}', **texts,
        "lora_adapter_metadata": '{"unet.lora_alpha": 4}',
    }  # fmt: skip


def _odd_metadata(rng):
    """Texts that are JSON inside, mutated there, too."""
    told = dict(_metadata())
    if rng.random() < 0.7:
        told.pop("lorakit_settings")
    for key in rng.sample(sorted(told), 3):
        try:
            inner = mutated(rng, json.loads(told[key]))
            told[key] = json.dumps(inner)
        except ValueError:
            told[key] = str(hostile(rng))
    return told


def lora_file(rng, folder):
    tensors = {
        f"{LORA}.lora_down.weight": torch.zeros(2, 768),
        f"{LORA}.lora_up.weight": torch.zeros(8, 2),
        f"{LORA}.alpha": torch.tensor(1.0),
    }  # fmt: skip
    if rng.random() < 0.3:
        tensors = {
            f"{FOREIGN}.lora_A.weight": torch.zeros(2, 8),
            f"{FOREIGN}.lora_B.weight": torch.zeros(8, 2),
        }
    path = written(folder / "x.safetensors", _safetensors(rng, tensors, _odd_metadata(rng)))
    data_set(folder)

    def told():
        header = read_header(path)
        trigger_words(header.metadata)
        model_card("x", header.metadata, [], has_front=True)

    return lambda: each_of(
        [
            lambda: load_any(path)[1].text(),
            told,
            lambda: describe(inspect(path)),
            lambda: json.dumps(inspect(path)),
            lambda: read_lora(path),
            lambda: detect(path),
            lambda: planned(settings_in(folder, network_weights=str(path), dora_wd=True)),
        ]
    )


def peft_folder(rng, folder):
    tensors = {
        f"base_model.model.{FOREIGN[5:]}.lora_{r}.weight": torch.zeros(s)
        for r, s in (("A", (2, 8)), ("B", (8, 2)))
    }
    adapter = folder / "adapter"
    written(adapter / "adapter_model.safetensors", save(tensors))
    config = {
        "peft_type": "LORA",
        "lora_alpha": 4,
        "alpha_pattern": {"to_k": 2},
        "use_rslora": False,
    }
    written(adapter / "adapter_config.json", json_bytes(rng, mutated(rng, config)))
    data_set(folder)
    return lambda: each_of(
        [
            lambda: describe(inspect(adapter)),
            lambda: planned(settings_in(folder, network_weights=str(adapter))),
            lambda: read_lora(adapter),
        ]
    )


def base_file(rng, folder):
    tensors = {name: torch.zeros(4, 4, 1, 1) for name in BASE}
    metadata = {"modelspec.prediction_type": "epsilon"}
    path = written(folder / "base.safetensors", _safetensors(rng, tensors, metadata))
    data_set(folder)
    return lambda: each_of(
        [
            lambda: found_model(str(path)),
            lambda: planned(settings_in(folder, pretrained_model_name_or_path=str(path))),
            lambda: load_any(path),
            lambda: detect(path),
        ]
    )


def pickles(rng, folder):
    tensors = {name: torch.zeros(4, 4, 1, 1) for name in BASE} if rng.random() < 0.5 else {
        f"{LORA}.lora_down.weight": torch.zeros(2, 8), f"{LORA}.lora_up.weight": torch.zeros(8, 2)
    }  # fmt: skip
    contents = {"state_dict": tensors} if rng.random() < 0.5 else dict(tensors)
    for _ in range(rng.randrange(3)):
        contents[rng.choice((1, None, ("a",), "state_dict", "x", 2.5))] = hostile(rng)
    if rng.random() < 0.1:
        contents["state_dict"] = contents  # our own reader must see it
    if rng.random() < 0.2:
        data = pickle.dumps(hostile(rng), protocol=rng.randrange(6))
    else:
        buffer = io.BytesIO()
        torch.save(contents, buffer, _use_new_zipfile_serialization=rng.random() < 0.5)
        data = buffer.getvalue()
    path = written(folder / f"x{rng.choice(('.ckpt', '.pt', '.bin'))}", damaged(rng, data))
    return lambda: each_of(
        [
            lambda: state_of(path),
            lambda: found_model(str(path)),
            lambda: read_tensors(path, mapped=True),
            lambda: read_lora(path),
            lambda: detect(path),
        ]
    )


def caches(rng, folder):
    from kit.caching.disk import DiskCache

    tensors = {"mean": torch.zeros(4, 8, 8), "std": torch.ones(4, 8, 8)}
    written(folder / "cache" / "latents" / "k.safetensors", _safetensors(rng, tensors, {"a": "b"}))
    hashes = json_bytes(rng, mutated(rng, {"a": "0" * 64, "b": "1" * 64}))
    written(folder / "cache" / "hashes.json", hashes)

    def read():
        cache_of = DiskCache(folder / "cache", "latents", trusted=True)
        cache_of.get("k", "mean", "std")
        cache_of.hashes.of("a", lambda: "x")

    return read


@cache
def _pictures():
    made = {}
    for kind, ending in KINDS:
        picture = Image.radial_gradient("L").resize((64, 64))
        buffer = io.BytesIO()
        try:
            if kind == "HEIF":
                import pillow_heif

                pillow_heif.register_heif_opener()
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.convert("RGB").save(
                buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG") else {})
            )
        except (ImportError, KeyError, OSError):
            continue
        made[ending] = buffer.getvalue()
    return made


def pictures(rng, folder):
    concept = data_set(folder) / "2_ball"
    ending = rng.choice(sorted(_pictures()))
    data = _pictures()[ending]
    way = rng.random()
    if way < 0.2 and ending == "png":  # claims to be enormous
        data = data[:16] + rng.choice((60_000, 2**31 - 1, 0)).to_bytes(4, "big") * 2 + data[24:]
    elif way < 0.8:
        head = min(len(data), rng.choice((64, 400, len(data))))
        data = damaged(rng, data[:head]) + data[head:]
    else:
        data = damaged(rng, data)
    if rng.random() < 0.1:
        data = data[: len(data) // 2]
    path = written(concept / f"c.{rng.choice((ending, ending, 'png', 'jpg'))}", data)

    def read():
        from kit.dataset.picture_findings import _ends

        _ends(path, 0, len(data)) if data else None
        made = planned(settings_in(folder))
        size = measure(path)
        assert isinstance(size, str) == (path not in [image.path for image in made.images]) or (
            size[0] * size[1] > 10**8 or 0 in size
        )
        open_upright(path, about=64)
        open_upright(path)

    return read


def zips(rng, folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((0, 8, 12, 14))) as archive:
        for name in dict.fromkeys(rng.choices(NAMES, k=3)):
            content = rng.choice((_pictures()["png"], b"a ball", b"", bytes(100_000)))
            archive.writestr(name.encode("utf-8", "replace").decode(), content)
    path = written(folder / "x.zip", damaged(rng, buffer.getvalue()))
    told = rng.choice(
        (
            "x.zip",
            "up/x.zip",
            "x.png",
            "\0.zip",
            "n" * 300 + ".zip",
            "..",
            "2_x/y.zip",
            "\ud800.zip",
        )
    )
    (folder / OUT).mkdir()
    words = Words(rng.choice(("zib", "", "a/b", "~", "n" * 300)), rng.choice(("ball", "", "\0")))
    return lambda: receive([Source(path, told)], folder / OUT, words)


def states(rng, folder):
    """A run's two states and its record, as a run that goes on reads them."""
    run_dir = folder / OUT / "x.run"
    for name, step in (("state.pt", 4), ("state_before.pt", 3)):
        buffer = io.BytesIO()
        torch.save(mutated(rng, _state(step)) if rng.random() < 0.8 else _state(step), buffer)
        if rng.random() < 0.85:
            written(run_dir / "state" / name, damaged(rng, buffer.getvalue()))
    record = mutated(rng, {"fingerprint": "f", "seed": 1, "step": 4, "owed": ["samples"]})
    written(run_dir / "run.json", json_bytes(rng, record))
    network, optimization = _learner()
    guardian, plan = Guardian(), settings_in(folder)
    plan = SimpleNamespace(
        run=Run(folder / OUT, "x", "safetensors", "f", from_step=4),
        start=None,
        settings=plan,
        sample_due=lambda step: False,
        save_due=lambda step: "",
        due_after=lambda step: (),
    )
    checkpoint = Checkpoint(
        plan, network, optimization, Losses(3), scaler=None, write_file=lambda *_: None
    )
    checkpoint.also = {"guardian": guardian, "footing": _Footed()}
    return checkpoint.resume


class _Footed:
    """What a run's lightening does with its part of a state."""

    def state_dict(self):
        return Footing(True, 2).to_state()

    def load_state_dict(self, state):
        Footing.of_state(state)


def _learner():
    """A network of one layer with an optimizer that has learned."""
    network = torch.nn.Linear(3, 2)
    weights = tuple(network.parameters())
    optimization = optimization_of("AdamW", weights)
    learn(optimization, weights, range(2))
    return network, optimization


def _state(step):
    network, optimization = _learner()
    return {
        "format": 1,
        "step": step,
        "network": dict(network.state_dict()),
        "optimizer": optimization.optimizer.state_dict(),
        "optimizer_type": optimization.name,
        "schedule": optimization.scheduler.state_dict(),
        "scaler": {},
        "losses": [0.1, 0.2],
        "guardian": Guardian().state_dict(),
        "footing": Footing(True, 2).to_state(),
    }


READERS = {
    each.__name__: each
    for each in (lora_file, peft_folder, base_file, pickles, caches, states, pictures, zips)
}
