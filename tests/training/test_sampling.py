"""Sample pictures: repeatable, harmless to training, and what others see in the saved file."""

import contextlib
import importlib.metadata
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from packaging.version import Version
from PIL import Image

from kit import catalog
from kit.adapters.network import Network, attach, parts_of
from kit.errors import MissingPackage
from kit.events import Sampled
from kit.families import Family, Prediction
from kit.families.text import TextConditioner
from kit.lorafile import tensors
from kit.settings import NetworkSettings
from kit.settings.prompts import Prompt
from kit.training.sampling import SamplePipeline, SampleWriter, make_scheduler
from tests.support.parts import load_tiny, outcome, paint_all, plan_for
from tests.support.tiny import write_tiny

# diffusers before numpy 2's way of asking for arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

SIZE = (64, 64)
PROMPT = Prompt("a zib ball", scale=3.0, steps=4)
LOCON = NetworkSettings(
    LoRA_type="Kohya LoCon", network_dim=4, network_alpha=1.0, conv_dim=2, conv_alpha=0.5
)
PIPELINES = {"sd1": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
PARTS = {
    "text encoder": lambda name, _: name.startswith("lora_te"),
    "transformers": lambda name, _: "transformer_blocks" in name,
    "convolutions": lambda _, adapter: adapter.lora_down.weight.shape[2:] == (3, 3),
}
OLDEST_THAT_READS_TEXT = Version("0.41")  # diffusers before it: IndexError at kohya's te keys


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {key: write_tiny(root / key, key) for key in PIPELINES}


@pytest.fixture(scope="module")
def families(folders) -> dict[str, Family]:
    return {key: load_tiny(folder) for key, folder in folders.items()}


@pytest.fixture
def sd1(families) -> Family:
    return families["sd1"]


@pytest.fixture(scope="module")
def thin(tmp_path_factory) -> Family:
    """A smaller one, for what every sampler does."""
    return load_tiny(write_tiny(tmp_path_factory.mktemp("thin"), "sd1", thin=True))


@pytest.fixture
def hang():
    """A network whose changes show, at the start of its life; gone after the test."""
    hung: list[Network] = []

    def hang_one(family: Family, settings=LOCON, learns=None, strength=1.0) -> Network:
        network = attach(settings, family, learns=learns or parts_of(family), seed=1)
        hung.append(network)
        draws = torch.Generator().manual_seed(4)
        for _, adapter in network.named():
            adapter.lora_up.weight.data.normal_(std=strength, generator=draws)
        return network

    yield hang_one
    for network in hung:
        network.detach_hooks()


def pipeline(family: Family, sampler: str = "ddim") -> SamplePipeline:
    return SamplePipeline(TextConditioner(family), sampler, contextlib.nullcontext)


def draw(family: Family, prompt: Prompt = PROMPT, *, sampler: str = "ddim", seed: int = 1):
    return levels(pipeline(family, sampler).generate(prompt, size=SIZE, seed=seed))


def levels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(float) / 255


def opened(event: Sampled) -> np.ndarray:
    with Image.open(event.path) as picture:
        return levels(picture)


def needs_scipy(sampler: str) -> None:
    if sampler == "lms":
        pytest.importorskip("scipy")


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpm_2_a", "dpmsolver++"])
def test_the_same_seed_draws_the_same_picture(sd1, sampler):
    first = draw(sd1, sampler=sampler)
    assert first.shape == (64, 64, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)  # whatever the training has drawn by then
        assert np.array_equal(draw(sd1, sampler=sampler), first)
    assert difference(draw(sd1, sampler=sampler, seed=2), first) > 0.01


def test_prompt_and_negative_prompt_matter(sd1):
    first = draw(sd1)
    assert difference(draw(sd1, replace(PROMPT, text="a dog")), first) > 1e-3
    assert difference(draw(sd1, replace(PROMPT, negative="a dog")), first) > 1e-3


def test_without_guidance_the_negative_prompt_is_not_read(sd1):
    plain = replace(PROMPT, scale=1.0)
    assert np.array_equal(draw(sd1, plain), draw(sd1, replace(plain, negative="a dog")))
    assert difference(draw(sd1, plain), draw(sd1)) > 1e-3


@pytest.mark.parametrize("key", PIPELINES)
def test_a_bracket_of_weight_1_draws_the_same_picture_bit_for_bit(families, key):
    family = families[key]
    plain = draw(family, replace(PROMPT, negative="a dog"))
    for text, negative in [("(a zib ball:1.0)", "a dog"), ("a zib ball", "(a dog:1)")]:
        assert np.array_equal(draw(family, replace(PROMPT, text=text, negative=negative)), plain)
    for text, negative in [("(a zib:1.6) ball", "a dog"), ("a zib ball", "[a] dog")]:
        weighed = draw(family, replace(PROMPT, text=text, negative=negative))
        assert not np.array_equal(weighed, plain)  # by how much: below


def test_without_brackets_a_prompt_is_read_as_a_caption(sd1, monkeypatch):
    asked = []
    tokenize = sd1.tokenize
    monkeypatch.setattr(
        sd1, "tokenize", lambda texts, **how: asked.append(how) or tokenize(texts, **how)
    )
    tokens, weights = TextConditioner(sd1).prompt_tokens([r"a cat\\dog", "a (cat)"])
    assert torch.equal(tokens[0][:1], tokenize([r"a cat\\dog"], max_token_length=75)[0])
    assert [how["weighted"] for how in asked] == [False, True]
    assert weights[0][0].eq(1).all()
    assert weights[0][1].tolist()[0][:5] == [1, 1, pytest.approx(1.1), 1, 1]


@pytest.mark.parametrize(("key", "keeps_mean"), [("sd1", True), ("sdxl", False)])
def test_weights_of_a_prompt_count_as_in_the_reference(families, key, keeps_mean):
    family = families[key]
    tokens, weights = TextConditioner(family).prompt_tokens(["a (zib:1.6) ball"])
    plain = family.encode_tokens(tokens, clip_skip=1)
    drawn = family.encode_tokens(tokens, clip_skip=1, weights=weights, draws=True)
    factors = torch.ones(77)
    [at] = (tokens[0][0, 0] == family.tokenizer.inner("zib").input_ids[1]).nonzero()[0].tolist()
    pieces = len(family.tokenizer.inner("zib").input_ids) - 2
    factors[at : at + pieces] = 1.6
    expected = plain.hidden_BND * factors[None, :, None]
    if keeps_mean:
        expected = expected * (plain.hidden_BND.mean() / expected.mean())
        mean = float(plain.hidden_BND.mean())
        assert float(drawn.hidden_BND.mean()) == pytest.approx(mean, rel=1e-4)
    assert torch.allclose(drawn.hidden_BND, expected, rtol=1e-4, atol=1e-7)
    if plain.pooled_BP is not None:
        assert torch.equal(drawn.pooled_BP, plain.pooled_BP)
    trained = family.encode_tokens(tokens, clip_skip=1, weights=weights)
    assert torch.equal(trained.hidden_BND, plain.hidden_BND * factors[None, :, None])


def test_a_prompt_may_have_a_sampler_of_its_own(sd1):
    own = draw(sd1, replace(PROMPT, sampler="euler_a"), sampler="ddim")
    assert np.array_equal(own, draw(sd1, sampler="euler_a"))
    assert difference(own, draw(sd1, sampler="ddim")) > 1e-3


@pytest.mark.parametrize("predicts", Prediction)
@pytest.mark.parametrize(
    "sampler", [name for name in catalog.SAMPLERS if not name.startswith("k_")]
)
def test_every_sampler_draws_and_leaves_torchs_dice_alone(thin, monkeypatch, sampler, predicts):
    needs_scipy(sampler)
    family = replace(thin, predicts=predicts)
    decoded = []

    def decode(latents_BChw):
        decoded.append(latents_BChw)
        return thin.decode_latents(latents_BChw)

    monkeypatch.setattr(family, "decode_latents", decode)
    before = torch.random.get_rng_state()
    draw(family, sampler=sampler)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert bool(decoded[0].isfinite().all())
    assert 0.1 < decoded[0].std() < 100
    assert make_scheduler(sampler, family).config.prediction_type == predicts.value


def test_a_sampler_whose_package_is_missing_is_told(sd1, monkeypatch):
    class StandIn:
        def __init__(self, **options):
            raise ImportError("\nit requires the scipy library\nbut it was not found")

    monkeypatch.setattr(diffusers, "LMSDiscreteScheduler", StandIn)
    with pytest.raises(MissingPackage, match=r"sampler lms .*scipy library but it") as error:
        make_scheduler("lms", sd1)
    assert "euler_a" in error.value.possible


def test_samplers_of_the_k_names_are_the_same_ones():
    names = [name for name in catalog.SAMPLERS if name.startswith("k_")]
    assert names
    for name in names:
        assert catalog.SAMPLERS[name] is catalog.SAMPLERS[name.removeprefix("k_")]


@pytest.mark.parametrize(
    ("key", "sampler"), [("sd1", "ddim"), ("sd1", "euler_a"), ("sdxl", "euler_a")]
)
def test_pictures_drawn_together_are_those_drawn_one_by_one(families, key, sampler):
    prompts = [PROMPT, replace(PROMPT, text="a dog", negative="a zib")]
    seeds = [5, 6]
    painter = pipeline(families[key], sampler)
    together = painter.generate_batch(prompts, size=(64, 96), seeds=seeds)
    for picture, prompt, seed in zip(together, prompts, seeds, strict=True):
        alone = painter.generate(prompt, size=(64, 96), seed=seed)
        assert picture.size == (64, 96)
        assert np.abs(levels(picture) - levels(alone)).max() < 0.02
    assert difference(levels(together[0]), levels(together[1])) > 0.01


def test_sizes_need_not_fit_the_unets_levels(sd1):
    picture = pipeline(sd1).generate(PROMPT, size=(88, 72), seed=1)
    assert picture.size == (88, 72)
    assert levels(picture).std() > 0


def test_the_live_network_draws(sd1, hang):
    before = draw(sd1)
    network = hang(sd1)
    adapted = draw(sd1)
    assert difference(adapted, before) > 0.01
    network.set_multiplier(0)
    assert np.array_equal(draw(sd1), before)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_decoder_that_overflows_in_16_bits_goes_on_in_32(folders, sd1, wrong):
    family = load_tiny(folders["sd1"])
    family.vae.half()
    real = family.vae.decode

    def decode(latents_BChw):
        given = real(latents_BChw)
        if family.vae.dtype is torch.float16:
            given.sample[..., 0] = wrong
        return given

    family.vae.decode = decode
    assert difference(draw(family), draw(sd1)) < 0.01  # its weights were rounded to 16 bits
    assert family.vae.dtype is torch.float32
    assert len(family.take_notices()) == 1


# --------------------------------------------------------------------------- while training


@pytest.fixture
def sampled(tmp_path, sd1, hang):
    """The pictures that a plan's prompts give after a step, by a network with dropouts."""
    images = paint_all(tmp_path / "images", {"one": "a zib ball"})
    settings = LOCON.model_copy(
        update={"network_dropout": 0.5, "rank_dropout": 0.5, "module_dropout": 0.5}
    )
    network = hang(sd1, settings).train()

    def draw_at(step: int, prompts: str, **changes):
        asked = {"sample_prompts": prompts, "sample_every_n_steps": 1, "max_train_steps": 9}
        plan = plan_for(images, output_name="cat", resolution="64,64", **asked | changes)
        writer = writer_for(plan, pipeline(sd1, "euler_a"), network)
        _, events = outcome(writer.write(step, epoch=plan.epoch_of(step)))
        assert network.training
        assert all(isinstance(event, Sampled) for event in events)
        return plan, events

    return draw_at


def writer_for(plan, drawing=None, network=None) -> SampleWriter:
    return SampleWriter(
        drawing,
        network,
        plan.prompts,
        folder=plan.run.sample_dir,
        name=plan.run.name,
        seed=plan.seed,
        size=plan.size,
        by_epoch=bool(plan.settings.samples.sample_every_n_epochs),
    )


LINES = "a zib ball --n blurry --d 7 --l 3 --s 2\na dog --w 96 --h 72 --l 1 --s 2"


def test_samples_are_drawn_without_dropouts_and_do_not_touch_the_trainings_dice(sampled):
    before = torch.random.get_rng_state()
    _, first = sampled(1, LINES)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        _, second = sampled(2, LINES)
    for one, other in zip(first, second, strict=True):
        assert one.path != other.path
        assert one.seed == other.seed
        assert np.array_equal(opened(one), opened(other))


def test_samples_lie_where_kohya_puts_them_and_say_what_they_show(sampled, tmp_path):
    plan, [first, second] = sampled(4, LINES)
    assert (first.prompt, first.seed, first.step, first.index) == ("a zib ball", 7, 4, 0)
    assert (second.prompt, second.index) == ("a dog", 1)
    assert Path(first.path).parent == tmp_path / "out" / "sample"
    assert Path(first.path).name.startswith("cat_000004_00_")
    assert Path(first.path).name.endswith("_7.png")
    assert opened(first).shape == (64, 64, 3)
    assert opened(second).shape == (72, 96, 3)
    assert not list((tmp_path / "out").rglob("*.part"))
    assert second.seed == writer_for(plan).seed_of(plan.prompts[1], 1)


def test_samples_of_epochs_are_named_by_epoch(sampled):
    by_epoch = {"sample_every_n_epochs": 1, "max_train_steps": None, "max_train_epochs": 9}
    _, [event] = sampled(4, "a dog --s 1", **by_epoch)
    assert Path(event.path).name.startswith("cat_e000004_00_")


def test_a_prompt_without_seed_and_size_takes_the_runs(tmp_path):
    images = paint_all(tmp_path / "images", {"one": "x"})
    plans = (plan_for(images, resolution="100,84", seed=seed) for seed in (3, 4))
    one, other = map(writer_for, plans)
    assert one.size_of(Prompt("x")) == (96, 80)
    assert one.size_of(Prompt("x", width=128)) == (128, 80)
    assert one.seed_of(Prompt("x", seed=0), 0) == 0
    assert one.seed_of(Prompt("x"), 0) == one.seed_of(Prompt("y"), 0)
    drawn = {w.seed_of(Prompt("x"), index) for w in (one, other) for index in (0, 1)}
    assert len(drawn) == 4
    assert all(0 <= seed < 2**32 for seed in drawn)


# ------------------------------------------------------------------------ zero terminal SNR


@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler_a", "dpmsolver++"])
def test_a_zero_terminal_snr_family_starts_from_pure_noise(sd1, sampler):
    family = replace(sd1, predicts=Prediction.V, zero_terminal_snr=True)
    scheduler = make_scheduler(sampler, family)
    scheduler.set_timesteps(4)
    assert scheduler.config.timestep_spacing == "trailing"
    assert scheduler.config.rescale_betas_zero_snr
    assert scheduler.timesteps[0] == 999
    assert scheduler.alphas_cumprod[-1] < 1e-6
    ordinary = make_scheduler(sampler, replace(family, zero_terminal_snr=False))
    assert ordinary.alphas_cumprod[-1] > 1e-3
    assert ordinary.config.timestep_spacing != "trailing"
    picture = draw(family, sampler=sampler)
    assert np.isfinite(picture).all()
    assert difference(picture, draw(replace(family, zero_terminal_snr=False), sampler=sampler)) > 0


@pytest.mark.parametrize("sampler", ["pndm", "lms", "heun", "dpm_2", "dpm_2_a", "dpmsingle"])
def test_samplers_that_cannot_rescale_take_what_they_know(sd1, sampler):
    needs_scipy(sampler)
    family = replace(sd1, predicts=Prediction.V, zero_terminal_snr=True)
    config = make_scheduler(sampler, family).config
    assert config.get("timestep_spacing", "trailing") == "trailing"
    assert np.isfinite(draw(family, sampler=sampler)).all()


# ------------------------------------------------- what other programs see in the saved file


def torchao_is_too_old() -> bool:
    """Colab's: peft refuses to work beside it."""
    try:
        return Version(importlib.metadata.version("torchao")) < Version("0.16")
    except importlib.metadata.PackageNotFoundError:
        return False


def with_diffusers(folder: Path, family: Family, lora: Path | None) -> np.ndarray:
    """The picture of diffusers' own pipeline, from the same noise."""
    key = family.key
    pipeline = PIPELINES[key].from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler("ddim", family)
    if lora:
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name)  # older ones ask for it
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(1))
    [picture] = pipeline(
        PROMPT.text,
        negative_prompt="a dog",
        width=64,
        height=64,
        latents=noise[None],
        num_inference_steps=PROMPT.steps,
        guidance_scale=PROMPT.scale,
        output_type="np",
    ).images
    return picture


def without(network: Network, part: str, family: Family, prompt: Prompt) -> np.ndarray:
    """The picture where one part's adapters do nothing: had diffusers lost them, it would show."""
    for name, adapter in network.named():
        adapter.multiplier = 1.0 - PARTS[part](name, adapter)
    picture = draw(family, prompt)
    network.set_multiplier(1.0)
    return picture


@pytest.mark.skipif(torchao_is_too_old(), reason="peft does not work beside this torchao")
@pytest.mark.filterwarnings("ignore")  # theirs, not ours
@pytest.mark.parametrize("key", PIPELINES)
def test_diffusers_draws_the_same_with_the_saved_file(families, folders, tmp_path, hang, key):
    pytest.importorskip("peft")
    family = families[key]
    prompt = replace(PROMPT, negative="a dog")
    bare = draw(family, prompt)
    assert difference(with_diffusers(folders[key], family, None), bare) < 2e-3

    reads_text = Version(diffusers.__version__) >= OLDEST_THAT_READS_TEXT
    network = hang(family, learns=None if reads_text else frozenset({"unet"}))
    path = tmp_path / "cat.safetensors"
    tensors.write_lora(path, network.tensors(), {"ss_network_dim": "4"}, save_as="safetensors")
    ours, theirs = draw(family, prompt), with_diffusers(folders[key], family, path)
    assert np.abs(ours - theirs).max() < 0.005  # half a level of brightness and a little
    assert difference(ours, bare) > 0.015
    for part in PARTS if reads_text else PARTS.keys() - {"text encoder"}:
        assert np.abs(without(network, part, family, prompt) - ours).max() > 0.02, part


@pytest.mark.skipif(torchao_is_too_old(), reason="peft does not work beside this torchao")
@pytest.mark.filterwarnings("ignore")  # theirs, not ours
def test_diffusers_finds_the_alphas_outside_attention_alone(families, folders, hang):
    """What kit.catalog.readers says of files whose layers have alphas of their own."""
    pytest.importorskip("peft")
    if Version(diffusers.__version__) < OLDEST_THAT_READS_TEXT:
        pytest.skip("it cannot read the text encoder's keys")
    file, block = dict(hang(families["sd1"]).tensors()), "lora_unet_mid_block_"
    query, conv = "attentions_0_transformer_blocks_0_attn1_to_q", "resnets_0_conv1"
    for layer in (query, conv):
        file[f"{block}{layer}.alpha"] = 3 * file[f"{block}{layer}.alpha"]
    unet = UNet2DConditionModel.from_pretrained(folders["sd1"] / "unet", local_files_only=True)
    converted = StableDiffusionPipeline.lora_state_dict(file)
    StableDiffusionPipeline.load_lora_into_unet(*converted, unet)
    layers = dict(unet.mid_block.named_modules())
    scales = {
        layer: next(iter(layers[path].scaling.values()))
        for layer, path in {
            query: "attentions.0.transformer_blocks.0.attn1.to_q",
            conv: "resnets.0.conv1",
        }.items()
    }
    assert scales == {query: 1.0 / 4, conv: 3 * 0.5 / 2}
