"""Readers of texts: captions, prompts, arguments, links, paths, values of the command line."""

import json

from kit.cli.settings_arguments import read_settings
from kit.dataset import tokens
from kit.dataset.caption_tags import holds_word, tag_counts, tag_style, without_tags
from kit.dataset.captions import effective_captions, fullest_captions
from kit.dataset.prompt_weighting import parse_emphasis
from kit.exchange import load_any
from kit.presets import preset_named, presets
from kit.settings import declarations
from kit.settings.links import is_link, tidied, whole
from kit.settings.optimizer_args import parse_optimizer_args
from kit.settings.prompts import parse_prompts
from tests.fuzz.stage import data_set, each_of, planned, settings_in, written
from tests.fuzz.values import PATHS, TEXTS, damaged, hostile, json_bytes, mutated, toml_bytes

PROMPTS = ("a ball --n blurry --w 512 --h 512 --d 7 --l 7.5 --s 20", "x --ss euler_a", "# no", "")
ALPHABET = "ab ,.:;()[]{}|\\<>0123456789\n\té🙂'\"=-+#$%&_"
COMMAND = (
    "accelerate launch --num_cpu_threads_per_process=2 train_network.py "
    '--network_module=networks.lora --network_dim 8 --network_args "conv_dim=4" "unit=1" '
    "--learning_rate 1e-4 --xformers "
    "--optimizer_args weight_decay=0.1 betas=0.9,0.99 --resolution=512,512 --output_name x"
)


def _mess(rng, most=60):
    """A text of a few pieces, some hostile, some at random."""
    pieces = []
    for _ in range(rng.randrange(1, 6)):
        if rng.random() < 0.3:
            pieces.append(rng.choice(TEXTS))
        else:
            pieces.append("".join(rng.choice(ALPHABET) for _ in range(rng.randrange(most))))
    return "".join(pieces)


def captions(rng, folder):
    text = _mess(rng)
    if rng.random() < 0.05:
        text = rng.choice(("(a:1.1)", "(a", "[", "a, ", "((a))", "\\(", "🙂", "{a|b}")) * 20_000
    data_set(folder)
    written(
        folder / "data" / "2_ball" / "a.txt", damaged(rng, text.encode("utf-8", "surrogatepass"))
    )
    wilds = rng.random() < 0.7
    settings = settings_in(
        folder, enable_wildcard=wilds, shuffle_caption=True, weighted_captions=rng.random() < 0.5,
        keep_tokens_separator=rng.choice(("", "|||", "a")),
        caption_separator=rng.choice((",", ".", "a")),
    )  # fmt: skip

    def read():
        emphasised = parse_emphasis(text)
        assert sum(len(piece) for piece, _ in emphasised) <= len(text)
        # Half a character is refused where it is read; what is typed into the form is none.
        plain = text.encode("utf-8", "replace").decode()
        effective_captions(plain, settings.captions, seed=1, image=0)
        fullest_captions(plain, settings.captions)
        style = tag_style(settings.captions)
        tag_counts([(plain, style)])
        without_tags(plain, ["a"], style)
        holds_word(plain, "a")
        if len(plain) < 20_000:
            tokens.count(plain, weighted=True)
        planned(settings)

    return read


def prompts(rng, folder):
    data_set(folder)
    keys = {
        "prompt": "a",
        "width": 64,
        "seed": 3,
        "scale": 7,
        "sample_steps": 5,
        "negative_prompt": "b",
    }
    kind = rng.choice(("text", ".txt", ".toml", ".json"))
    lines = "\n".join(rng.choice((*PROMPTS, _mess(rng), f"a --{_mess(rng, 8)}")) for _ in range(4))
    if kind == ".json":
        data = json_bytes(rng, mutated(rng, [keys, "a ball --w 64"]))
    elif kind == ".toml":
        data = toml_bytes(rng, mutated(rng, {"prompt": {**keys, "subset": [keys, {"seed": 4}]}}))
    else:
        data = damaged(rng, lines.encode("utf-8", "surrogatepass"))
    file = written(folder / f"prompts{kind}", data) if kind != "text" else None
    asked = str(file) if file else lines

    def read():
        planned(settings_in(folder, sample_prompts=asked))
        parse_prompts(asked)

    return read


def arguments(rng, folder):
    """The texts of name=value, of lists and of numbers in the settings."""
    names = [n for n, d in declarations().items() if d.type in ("str", "text")]
    chosen = {
        name: rng.choice((_mess(rng, 20), f"a={_mess(rng, 12)}")) for name in rng.sample(names, 3)
    }
    args = rng.choice((_mess(rng), f"betas={_mess(rng, 10)}", "a=(((1", "a=0x", "a='\\d'"))
    data_set(folder)

    def read():
        try:
            parse_optimizer_args(args)
        except ValueError as error:  # the rules' own word for it
            assert str(error)
        for name in ("optimizer_args", "lr_scheduler_args", "additional_parameters"):
            if name in declarations():
                chosen.setdefault(name, args)
        settings = settings_in(folder)
        each_of(
            lambda name=n, value=v: planned(settings.replace(**{name: value}))
            for n, v in chosen.items()
        )

    return read


def command_line(rng, folder):
    words = COMMAND.split(" ")
    for _ in range(rng.randrange(4)):
        words[rng.randrange(len(words))] = rng.choice(
            (_mess(rng, 12), rng.choice(TEXTS), "--config_file")
        )
    text = " ".join(words)
    if rng.random() < 0.1:
        text = json.dumps({"network_module": "networks.lora", "network_args": hostile(rng)})
    path = written(folder / "command.txt", damaged(rng, text.encode("utf-8", "surrogatepass")))

    def read():
        _, report = load_any(rng.choice((path, text)))
        report.text()

    return read


def set_values(rng, folder):
    names = rng.sample(sorted(declarations()), 3)
    changes = [f"{name}={rng.choice((*TEXTS, *PATHS, _mess(rng, 10)))}" for name in names]
    changes.append(rng.choice((_mess(rng, 20), "network.network_dim=4", "=", "a.b.c=1")))
    preset = rng.choice(("", "", _mess(rng, 10), rng.choice(sorted(presets()))))
    data_set(folder)

    base = settings_in(folder)
    places = [f"{name}={value}" for name, value in base.changed().items()]
    return lambda: each_of(
        [
            *(lambda c=c: planned(read_settings(None, [*places, c])) for c in changes),
            lambda: preset_named(preset),
            lambda: planned(read_settings(None, [*places, *changes], preset=preset)),
        ]
    )


def links(rng, folder):
    from kit.basemodel.civitai import is_civitai, version_in
    from kit.basemodel.downloading import downloaded
    from kit.basemodel.locating import locate
    from kit.basemodel.preflight import found_model

    start = rng.choice(
        ("https://", "http://", "HTTPS://", "https://civitai.com/models/", "", "https://hf.co/")
    )
    text = start + rng.choice(
        (_mess(rng, 20), rng.choice(PATHS), "[::1", "a:b@c:99999/x?token=y&a=%zz")
    )
    data_set(folder)

    def read():
        tidy = tidied(text)
        if is_link(tidy):
            is_civitai(tidy)
            version_in(tidy)
            downloaded(tidy)
            assert whole(tidy)
        found_model(text)
        planned(settings_in(folder, pretrained_model_name_or_path=text))
        if not tidy.lower().startswith("http"):
            locate(text)

    return read


def paths(rng, folder):
    from kit.runs.resume import find_start

    data_set(folder)
    names = [n for n, d in declarations().items() if d.type == "path"] + [
        "output_name",
        "caption_extension",
    ]
    changes = {
        name: rng.choice((*PATHS, str(folder), str(folder / "data/2_ball/a.png")))
        for name in rng.sample(names, rng.choice((1, 2)))
    }
    changes |= rng.choice(({}, {"masked_loss": True}, {"log_with": "tensorboard"}))

    def read():
        settings = settings_in(folder)
        each_of(
            [
                *(lambda n=n, v=v: planned(settings.replace(**{n: v})) for n, v in changes.items()),
                lambda: planned(settings.replace(**changes)),
                lambda: find_start(next(iter(changes.values()))),
            ]
        )

    return read


READERS = {
    each.__name__: each
    for each in (captions, prompts, arguments, command_line, set_values, links, paths)
}
