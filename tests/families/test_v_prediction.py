"""SD 2.x 768-v and SDXL with v-prediction and zero terminal SNR, from the model to the file."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kit.families import Prediction
from kit.lorafile.tensors import read_header
from kit.settings.prompts import Prompt
from kit.training.sampling import SamplePipeline
from tests.support.tiny import write_tiny
from tests.support.toys import leave_after, lora, losses, run, same, toy_settings

FAMILIES = ("sd2", "sdxl")
TERMINAL = {"min_timestep": 999, "cache_latents": True}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        (family, zero): write_tiny(
            root / f"{family}-{zero}", family, predicts="v_prediction", zero_snr=zero, thin=True
        )
        for family in FAMILIES
        for zero in (True, False)
    }


@pytest.fixture
def ready_for(folders, images, prepared, tmp_path):
    def made(family, *, zero=True, **changes):
        return prepared(toy_settings(folders[family, zero], images, tmp_path / "out", **changes))

    return made


def kept(*, zero):
    """Alpha-bar of the 1000 timesteps in float64, by Lin et al. 2023, algorithm 1."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas_bar_sqrt = np.sqrt(np.cumprod(1 - betas))
    if zero:
        first, last = alphas_bar_sqrt[0], alphas_bar_sqrt[-1]
        alphas_bar_sqrt = (alphas_bar_sqrt - last) * first / (first - last)
    return alphas_bar_sqrt**2


def watched(ready, batch):
    """The loss of a batch, and what the U-Net was given and answered."""
    seen = SimpleNamespace()

    def note(_, args, answer):
        seen.given, seen.t, seen.answer = args[0], args[1], answer.sample.detach()

    hook = ready.family.unet.register_forward_hook(note)
    seen.loss = ready.training_step.loss(batch).mean().item()
    hook.remove()
    return seen


def column(values):
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None]


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_says_what_it_predicts_and_how_its_noise_ends(ready_for, family, zero):
    ready = ready_for(family, zero=zero)
    assert ready.family.predicts is Prediction.V
    assert ready.family.zero_terminal_snr is zero


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_seen_and_asked_follows_the_formulas(ready_for, family, zero):
    ready = ready_for(family, zero=zero, min_snr_gamma=5, train_batch_size=2)
    alphas = kept(zero=zero)
    for number in range(3):
        batch = ready.batch_builder.batch(number)
        seen, clean, noise = watched(ready, batch), batch.latents_BChw, batch.noise_BChw
        a = alphas[batch.t_B.numpy()]
        assert torch.allclose(
            seen.given, column(a**0.5) * clean + column((1 - a) ** 0.5) * noise, atol=1e-4
        )
        v = column(a**0.5) * noise - column((1 - a) ** 0.5) * clean
        ratio = a / (1 - a)
        weight = np.minimum(ratio, 5) / (ratio + 1)
        errors = (seen.answer - v).square().mean((1, 2, 3)).numpy()
        assert seen.loss == pytest.approx((weight * errors).mean(), rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_timestep_is_pure_noise_and_asks_for_the_picture(ready_for, family):
    ready = ready_for(family, **TERMINAL)
    batch = ready.batch_builder.batch(0)
    seen = watched(ready, batch)
    assert (batch.t_B == 999).all()
    assert torch.equal(seen.given, batch.noise_BChw)
    wanted = (seen.answer + batch.latents_BChw).square().mean().item()
    assert seen.loss == pytest.approx(wanted, rel=1e-5)
    ordinary = ready_for(family, zero=False, **TERMINAL)
    assert not torch.allclose(watched(ordinary, batch).given, batch.noise_BChw, atol=1e-2)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler_a", "dpmsolver++"])
def test_a_perfect_guess_of_v_draws_its_picture(ready_for, monkeypatch, sampler, zero):
    """The U-Net is replaced by the truth about one picture: the sampler must arrive there."""
    ready, alphas = ready_for("sd2", zero=zero), torch.from_numpy(kept(zero=zero))
    goal = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    drawn = []

    def predict(noisy, t, conditioning):
        # Samplers ask between whole timesteps, too.
        low, high = int(t[0].floor()), int(t[0].ceil())
        a = torch.lerp(alphas[low], alphas[high], float(t[0]) - low).float()
        noise = (noisy - a.sqrt() * goal) / (1 - a).sqrt()
        return a.sqrt() * noise - (1 - a).sqrt() * goal

    def decode(latents):
        drawn.append(latents)
        return torch.zeros(1, 3, 64, 64)

    monkeypatch.setattr(ready.family, "predict", predict)
    monkeypatch.setattr(ready.family, "decode_latents", decode)
    pipeline = SamplePipeline(
        ready.samples.pipeline.text, sampler, ready.training_step.accelerator.autocast
    )
    pipeline.generate(Prompt("a zib ball", scale=1, steps=20), size=(64, 64), seed=1)
    # ddim ends at the first timestep, where 3 % of noise are left, as it was made to.
    assert torch.allclose(drawn[0], goal, atol=0.12 if sampler == "ddim" else 0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_goes_on_exactly_and_its_file_says_what_it_is(folders, images, tmp_path, family):
    def asked(out):
        changes = {"max_train_steps": 3, "min_snr_gamma": 5, "network_alpha": 2}
        return toy_settings(folders[family, True], images, tmp_path / out, **changes)

    straight = run(asked("a"))
    first = leave_after(1, asked("b"))
    assert losses(first) + losses(run(asked("b"))) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    told = read_header(tmp_path / "a" / "toy.safetensors").metadata
    base, architecture = {
        "sd2": ("sd_v2_v", "stable-diffusion-v2-768-v/lora"),
        "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    }[family]
    assert told["modelspec.prediction_type"] == "v"
    assert told["modelspec.architecture"] == architecture
    assert told["ss_base_model_version"] == base
    assert told["ss_zero_terminal_snr"] == "True"
    assert told["ss_v2"] == str(family == "sd2")


def test_a_claim_of_the_settings_counts_where_the_file_is_silent(ready_for, folders, tmp_path):
    silent = write_tiny(tmp_path / "silent", "sd2", thin=True)
    (silent / "scheduler" / "scheduler_config.json").unlink()
    changes = {"pretrained_model_name_or_path": str(silent)}
    assert ready_for("sd2", **changes).family.predicts is Prediction.EPSILON
    claimed = ready_for("sd2", **changes, v_parameterization=True, zero_terminal_snr=True)
    assert claimed.family.predicts is Prediction.V
    assert claimed.family.zero_terminal_snr
