"""Readers of JSON and TOML."""

import json
from functools import cache
from pathlib import Path

from kit.dataset.data_sets import Words  # noqa: F401  # opens the room before the watch
from kit.errors import KitError
from kit.events import Began, Finished, Loaded, RateChanged, Sampled, Saved, Stepped, to_line
from kit.exchange import export_gui, export_sd_scripts, load_any
from kit.settings import Settings, declarations
from tests.fuzz.stage import data_set, planned, settings_in, written
from tests.fuzz.values import damaged, hostile, json_bytes, mutated, toml_bytes

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPTS = {
    "network_module": "networks.lora", "network_dim": 8, "network_args": ["conv_dim=4", "unit=1"],
    "optimizer_type": "AdamW8bit", "optimizer_args": ["weight_decay=0.1", "betas=0.9,0.99"],
    "learning_rate": 1e-4, "text_encoder_lr": [5e-5], "resolution": "512,512",
    "max_train_epochs": 3,
    "lr_warmup_steps": 0.1, "caption_extension": ".txt", "output_name": "x", "noise_offset": 0.1,
    "sample_prompts": "a ball", "enable_bucket": True, "scale_v_pred_loss_like_noise_pred": False,
}  # fmt: skip
CONFIG = {
    "general": {"caption_extension": ".txt", "shuffle_caption": True, "keep_tokens": 1},
    "datasets": [
        {
            "resolution": [64, 64], "batch_size": 1,
            "subsets": [{"image_dir": "data/2_ball", "num_repeats": 2, "class_tokens": "ball"}],
        },
        {"resolution": 64, "subsets": [{"image_dir": "data/2_ball", "flip_aug": True}]},
    ],
}  # fmt: skip
METADATA = {"a": {"caption": "a ball", "tags": "red, round"}, "b.png": {"caption": "x"}}
EVENTS = (
    Began("out/x.run", "x", 4), Loaded("sd1", "cpu", "no", 10, 1000, 0),
    *(Stepped(n, n / 2, 0.1, 0.1, {"unet": 1e-4}, 0.5, 0.1, (0.1, None), 9) for n in (1, 2, 3)),
    Sampled(2, 0, "out/sample/x.png", "a ball", 7), Saved(2, 1, "out/x-000001.safetensors", ("y",)),
    RateChanged(3, {"unet": 0.5}), Finished(4, "done", "out/x.safetensors"),
)  # fmt: skip


def _some(rng, table, most):
    names = rng.sample(sorted(table), min(most, len(table)))
    return {name: table[name] for name in names}


def settings_toml(rng, folder):
    data_set(folder)
    flat = _some(
        rng, {n: d.default for n, d in declarations().items() if d.default is not None}, 12
    )
    flat |= {n: hostile(rng) for n in rng.sample(sorted(declarations()), rng.choice((0, 0, 1, 2)))}
    tables = {}
    for name, value in flat.items():
        tables.setdefault(declarations()[name].section, {})[name] = value
    path = written(
        folder / "run.toml", toml_bytes(rng, mutated(rng, tables, rng.choice((0, 0, 1, 2))))
    )

    def read():
        settings, report = load_any(path)
        report.text()
        own = {"train_data_dir": str(folder / "data"), "max_train_steps": 4, "resolution": "64,64"}
        planned(settings.replace(**{n: v for n, v in own.items() if rng.random() < 0.8}))

    return read


@cache
def _presets():
    return [
        json.loads(path.read_text("utf-8")) for path in sorted((GOLDEN / "gui_presets").iterdir())
    ]


def kohya_json(rng, folder):
    document = mutated(rng, _some(rng, rng.choice(_presets()), rng.choice((5, 40))))
    path = written(folder / "old.json", json_bytes(rng, document))

    def read():
        settings, report = load_any(path, base=rng.choice((None, Settings())))
        report.text()
        export_gui(settings)
        export_sd_scripts(settings)

    return read


def sd_scripts_toml(rng, folder):
    path = written(folder / "config.toml", toml_bytes(rng, mutated(rng, _some(rng, SCRIPTS, 10))))

    def read():
        settings, report = load_any(path)
        report.text()
        export_sd_scripts(settings)

    return read


def dataset_config(rng, folder):
    data_set(folder)
    document = mutated(rng, CONFIG, rng.choice((0, 1, 1, 2)))
    ending, make = rng.choice(((".toml", _config_toml), (".json", json_bytes)))
    path = written(folder / f"config{ending}", make(rng, document))
    return lambda: planned(settings_in(folder, dataset_config=str(path)))


def _config_toml(rng, document):
    """Lists of tables as inline tables, which is TOML as well."""
    return toml_bytes(rng, document)


def metadata_file(rng, folder):
    data_set(folder)
    document = mutated(rng, METADATA, 3)
    if rng.random() < 0.5:
        rows = document.items() if isinstance(document, dict) else [("a", document)]
        lines = [
            json.dumps({"image_path": key, **row} if isinstance(row, dict) else row)
            for key, row in rows
        ]
        path = written(
            folder / "m.jsonl", damaged(rng, "\n".join(lines).encode("utf-8", "replace"))
        )
    else:
        path = written(folder / "m.json", json_bytes(rng, document))
    subset = {"image_dir": "data/2_ball", "metadata_file": path.name}
    config = written(
        folder / "config.json", json.dumps({"datasets": [{"subsets": [subset]}]}).encode()
    )
    return lambda: planned(settings_in(folder, dataset_config=str(config)))


def run_json(rng, folder):
    from kit.runs.resume import find_start

    data_set(folder)
    record = {"fingerprint": "f" * 64, "seed": 3, "step": 2, "finished": False}
    run = folder / "out" / "x.run"
    for place in (run, folder / "kept"):
        written(place / "run.json", json_bytes(rng, mutated(rng, record, 1)))
        written(place / "state" / "state.pt", b"")
        written(place / "logs.json", json_bytes(rng, mutated(rng, {"wandb": "abc", "tb": "x"})))

    def read():
        from kit.runs.record import recall

        recall(run, "wandb")
        made = planned(settings_in(folder))
        assert made.run.from_step >= 0
        find_start(str(folder / "kept"))

    return read


def events(rng, folder):
    from kit.sinks.jsonl import JsonLines, read_events
    from kit.ui.charts import CHARTS
    from kit.ui.monitor.history import History
    from kit.ui.monitor.results import Results

    rows = [
        mutated(rng, json.loads(to_line(event)), 1 if rng.random() < 0.3 else 0) for event in EVENTS
    ]
    data = damaged(rng, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    path = written(folder / "x.run" / "events.jsonl", data)

    def read():
        JsonLines(path, from_step=2).kept()
        history = History()
        history.add_all(read_events(path))
        for chart in CHARTS.values():
            chart(history)
        Results.of_run(path.parent)._repr_html_()

    return read


def small_files(rng, folder):
    """What we keep for ourselves beside runs, caches, downloads and the form."""
    from kit.basemodel.downloading import _record
    from kit.dataset.caption_editing import newest_edit
    from kit.runs.lock import at_work_in
    from kit.runs.measured import best_of, read_measured
    from kit.ui.jupyter_server import server_root

    row = {"device": "cpu", "work": {"a": 1}, "seconds": 1.0, "megabytes": 5, "picture_seconds": 1}
    measured = json_bytes(rng, mutated(rng, [row, row]))
    lock = written(
        folder / "out" / "x.run" / "at_work.json",
        json_bytes(rng, mutated(rng, {"pid": 1, "host": "h", "since": 5})),
    )
    written(folder / "source.json", json_bytes(rng, mutated(rng, {"promised": 5, "etag": "x"})))
    written(
        folder / "jpserver-.json", json_bytes(rng, mutated(rng, {"root_dir": "/", "base_url": "/"}))
    )
    edit = {"edit": 1, "file": "a.txt", "before": "x", "after": "y", "what": "w"}
    written(folder / "a.txt", b"y")
    written(folder / ".captions_before.jsonl", json_bytes(rng, mutated(rng, edit)))

    def read():
        best_of(read_measured(measured.decode("utf-8", "replace")), "cpu", {"a": 1})
        _record(folder)
        server_root(folder)
        newest_edit([folder])
        with at_work_in(lock.parent):
            pass

    return read


def diffusers_folder(rng, folder):
    from kit.basemodel import detect
    from kit.basemodel.preflight import found_model

    model = folder / "model"
    unet = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "cross_attention_dim": 768}
    written(
        model / "unet" / "config.json", json_bytes(rng, mutated(rng, {**unet, "sample_size": 64}))
    )
    written(model / "model_index.json", json_bytes(rng, mutated(rng, {"_class_name": "X"})))
    scheduler = json_bytes(rng, mutated(rng, {"prediction_type": "epsilon"}))
    written(model / "scheduler" / "scheduler_config.json", scheduler)
    for part in ("vae", "text_encoder"):
        written(model / part / "config.json", b"{}")
    for part in ("unet", "vae", "text_encoder"):
        written(model / part / "diffusion_pytorch_model.safetensors", b"")
    if rng.random() < 0.2:
        (model / "unet" / "config.json").unlink()
    data_set(folder)

    def read():
        found_model(str(model))
        planned(settings_in(folder, pretrained_model_name_or_path=str(model)))
        detect(model)

    return read


def option_files(rng, folder):
    """The tables of a tracker and of LyCORIS' layers."""
    from kit.settings.effective import tracker_tables
    from kit.settings.targets import preset_of

    tracker = {"wandb": {"name": "x", "tags": ["a"]}, "tensorboard": {"filename_suffix": "a"}}
    layers = {
        "enable_conv": True, "unet_target_module": ["Transformer2DModel"], "use_fnmatch": False,
        "text_encoder_target_module": ["CLIPAttention"], "unet_target_name": ["to_k"],
        "exclude_name": ["x"],
    }  # fmt: skip
    one = written(folder / "tracker.toml", toml_bytes(rng, mutated(rng, tracker)))
    other = written(folder / "layers.toml", toml_bytes(rng, mutated(rng, layers)))
    data_set(folder)

    def read():
        settings = settings_in(
            folder, log_tracker_config=str(one), log_with="all",
            logging_dir=str(folder / "out"), LyCORIS_preset=str(other),
            LoRA_type="LyCORIS/LoCon",
        )  # fmt: skip
        for ask in (lambda: tracker_tables(settings.logs), lambda: preset_of(str(other))):
            try:
                ask()
            except (KitError, ValueError) as error:  # ValueError: the rules' own word for it
                assert str(error)
        planned(settings)

    return read


READERS = {
    each.__name__: each
    for each in (
        settings_toml, kohya_json, sd_scripts_toml, dataset_config, metadata_file, run_json, events,
        small_files, diffusers_folder, option_files,
    )
}  # fmt: skip
