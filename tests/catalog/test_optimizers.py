"""Every optimizer of the menu learns on the embedded base, goes on bit-equal, keeps its rules."""

import inspect
import io
from dataclasses import dataclass

import pytest
import torch
from torch.nn import Parameter

from kit import catalog, demo, planning
from kit.adapters.param_groups import Group, PartRates
from kit.catalog.lr_schedules import ScheduleParams
from kit.devices import make_accelerator
from kit.errors import SettingsError
from kit.events import Stepped
from kit.optim.averaging import averaged, averages
from kit.optim.learning_rates import effective_rates_of, rates_of
from kit.optim.making import build_optimization, restore_optimizer
from kit.optim.optimization import Optimization
from kit.settings.optimizer_args import parse_optimizer_args
from kit.sinks.scalars import scalars
from kit.training.copies import copies_for
from kit.training.loop import train
from kit.training.preparation import Resources, equip
from kit.training.step import run_step
from tests.support.parts import load_tiny, outcome
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

CPU = torch.device("cpu")
STEPS, KEPT, COMPARED = 30, 7, 9
# D-Adaptation's Adam overshoots in so few steps (the plan says so); others hardly start in them.
IN_SHORT_RUNS = {
    "DAdaptAdam": "growth_rate=1.2",
    "DAdaptAdamPreprint": "growth_rate=1.2",
    "DAdaptation": "growth_rate=1.2",
    "DAdaptAdan": "d0=1e-4",
    "DAdaptAdaGrad": "d0=1e-4",
    "DAdaptLion": "d0=1e-4",
    "DAdaptSGD": "d0=1e-4",
    "prodigyplus.ProdigyPlusScheduleFree": "d0=1e-4",
}
PAGED = [name for name in catalog.OPTIMIZERS if "Paged" in name]
# One of each way of making a step. The others are rows of the same code: their numbers, and that
# they go on, are shown on small weights below.
OF_EACH_KIND = (
    "AdamW", "AdamW8bit", "Adafactor", "Lion", "SGDNesterov8bit", "Prodigy",
    "DAdaptAdam", "AdamWScheduleFree", "pytorch_optimizer.CAME",
    "prodigyplus.ProdigyPlusScheduleFree",
)  # fmt: skip
FREE = [name for name, row in catalog.OPTIMIZERS.items() if row.controls_lr == "schedule"]


def class_of(name):
    """The row's class; skips where its package is not installed."""
    row = catalog.OPTIMIZERS[name]
    pytest.importorskip(row.code.partition(":")[0])
    return catalog.load(row.code, row.needs)


def made(groups, name: str, arguments: str = "", **changes) -> Optimization:
    class_of(name)
    asked = {"lr_scheduler": "constant", "schedule_params": ScheduleParams(100), "device": CPU}
    return build_optimization(
        groups, optimizer_type=name, optimizer_args=arguments, **asked | changes
    )


def copied(state):
    """A state as it comes back from its file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True, map_location="cpu")


# ---------------------------------------------------------------------------- the embedded base


@dataclass
class Bench:
    """The demo's run, whose network starts anew for every optimizer."""

    ready: Resources
    start: dict
    batches: list
    measured: list

    def begin(self, name: str) -> None:
        self.ready.network.load_state_dict(self.start)
        rate = catalog.OPTIMIZERS[name].advised_lr or 1.0
        rates = dict.fromkeys(("unet", "te"), rate)
        groups = self.ready.network.groups(PartRates(rates))
        step = self.ready.training_step
        step.optimization = made(groups, name, IN_SHORT_RUNS.get(name, ""))
        step.copies = copies_for(  # of the weights where they lie now
            self.ready.network, step.optimization.optimizer, self.ready.family, torch.float32
        )

    def learn(self, first: int, last: int) -> None:
        for step in range(first, last):
            run_step(self.ready.training_step, [self.batches[step]], count=1)

    def weights(self) -> dict:
        return {key: value.clone() for key, value in self.ready.network.state_dict().items()}

    def loss(self) -> float:
        """Mean over noise, timesteps and images that stay the same."""
        with torch.no_grad(), averaged(self.ready.optimization):
            return sum(
                float(self.ready.training_step.loss(batch).mean()) for batch in self.measured
            ) / len(self.measured)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    settings = demo.settings(str(tmp_path_factory.mktemp("out"))).replace(
        train_batch_size=2, network_dim=4, network_alpha=4, LoRA_type="Standard",
        reg_data_dir="", sample_prompts="", sample_at_first=False, sample_every_n_steps=0,
    )  # fmt: skip
    plan = planning.plan(settings)
    family = load_tiny(demo.BASE)
    accelerator = make_accelerator(CPU, "no")
    job = equip(plan, family, accelerator, writer=lambda *_: lambda *_: None)
    ready, _ = outcome(job)
    start = {key: value.clone() for key, value in ready.network.state_dict().items()}
    batches = [next(iter(ready.batch_builder.micro_batches(step))) for step in range(1, STEPS + 1)]
    measured = [next(iter(ready.batch_builder.micro_batches(step))) for step in range(400, 404)]
    yield Bench(ready, start, batches, measured)
    ready.network.detach_hooks()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in OF_EACH_KIND else pytest.mark.long)
        for name in catalog.OPTIMIZERS
    ],
)
def test_it_learns_at_its_advised_rate_and_goes_on_bit_equal(bench, name):
    bench.begin(name)
    before = bench.loss()
    bench.learn(0, KEPT)
    kept = copied(bench.ready.optimization.optimizer.state_dict()), bench.weights()
    bench.learn(KEPT, COMPARED)
    straight = bench.weights()
    bench.learn(COMPARED, STEPS)
    after = bench.loss()
    bench.begin(name)
    bench.ready.network.load_state_dict(kept[1])
    restore_optimizer(bench.ready.optimization.optimizer, kept[0])
    bench.learn(KEPT, COMPARED)
    assert same(bench.weights(), straight)
    assert after < before - 1e-5


# ------------------------------------------------------------------------------------- the rows


def weights_of(seed: int = 0) -> tuple[Parameter, ...]:
    """A matrix large enough for 8-bit states, one that starts at zero as lora_up, a convolution."""
    draws = torch.Generator().manual_seed(seed)
    return (
        Parameter(torch.randn(64, 80, generator=draws)),
        Parameter(torch.zeros(16, 8)),
        Parameter(torch.randn(8, 4, 3, 3, generator=draws)),
    )


def groups_of(weights, rate: float) -> tuple[Group, ...]:
    return Group("textencoder", rate, tuple(weights[:2])), Group("unet", rate, tuple(weights[2:]))


def step(own: Optimization, number: int) -> None:
    """One step down a bowl, with noise that belongs to the step."""
    draws = torch.Generator().manual_seed(number)
    for group in own.optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = (weight.detach() - 1) / 100 + torch.randn(
                weight.shape, generator=draws
            ) / 1000
    own.optimizer.step()
    own.scheduler.step()


@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
def test_broken_off_and_looked_at_it_goes_on_bit_equal(name):
    rate = catalog.OPTIMIZERS[name].advised_lr or 1.0
    straight, broken, resumed = weights_of(), weights_of(), weights_of()
    own = made(groups_of(straight, rate), name)
    for number in range(9):
        step(own, number)
    first = made(groups_of(broken, rate), name)
    for number in range(3):
        with averaged(first):
            pass  # a sample picture, a LoRA file
        step(first, number)
    with pytest.raises(InterruptedError), averaged(first):
        raise InterruptedError
    kept = copied([first.optimizer.state_dict(), [weight.detach() for weight in broken]])
    second = made(groups_of(resumed, rate), name)
    with torch.no_grad():
        for weight, value in zip(resumed, kept[1], strict=True):
            weight.copy_(value)
    restore_optimizer(second.optimizer, kept[0])
    assert effective_rates_of(second) == effective_rates_of(first)
    for number in range(3, 9):
        step(second, number)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
def test_a_row_knows_its_classes_arguments(name):
    row = catalog.OPTIMIZERS[name]
    known = {
        key: parameter.default
        for key, parameter in inspect.signature(class_of(name)).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    for key, value in parse_optimizer_args(row.takes).items():
        assert key in known
        default = row.defaults.get(key, known[key])
        assert value == default, f"{key}: the row says {value}, the class {default}"
    assert set(row.renamed.values()) <= set(known)
    assert set(row.defaults) <= set(parse_optimizer_args(row.takes))


@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
def test_a_row_says_what_its_optimizer_does(name):
    row = catalog.OPTIMIZERS[name]
    own = made(groups_of(weights_of(), 1.0), name)
    assert averages(own.optimizer) == (row.controls_lr == "schedule")
    assert own.own_rate == (row.controls_lr == "rate")
    assert all(("d" in group) == row.adapts for group in own.optimizer.param_groups)
    assert own.described.endswith(")") == bool(row.defaults) or own.notices
    if row.adapts:
        assert row.advised_lr == 1


@pytest.mark.parametrize("name", catalog.OPTIMIZERS)
def test_different_rates_are_used_or_refused(name):
    """Where a row allows them, the second group's own rate changes its step."""
    row, moved = catalog.OPTIMIZERS[name], []
    if row.one_rate or row.controls_lr == "rate":
        return
    for rate in (0.01, 0.02):
        weights = weights_of()
        before = weights[2].detach().clone()
        groups = groups_of(weights, 0.01)
        own = made((groups[0], Group("unet", rate, groups[1].weights)), name)
        for number in range(9):
            step(own, number)
        moved.append(float((weights[2].detach() - before).norm()))
    assert moved[1] > 1.1 * moved[0]


@pytest.mark.parametrize("name", [n for n, row in catalog.OPTIMIZERS.items() if row.adapts])
def test_the_step_size_it_finds_is_told_beside_the_rate(name):
    own = made(groups_of(weights_of(), 1.0), name)
    assert rates_of(own) == {"textencoder": 1.0, "unet": 1.0}
    assert effective_rates_of(own) == {"textencoder": 1e-6, "unet": 1e-6}
    for number in range(25):
        step(own, number)
    assert all(rate > 1.1e-6 for rate in effective_rates_of(own).values())
    assert rates_of(own) == {"textencoder": 1.0, "unet": 1.0}


def test_where_prodigyplus_shares_a_step_size_it_is_the_one_told():
    name = "prodigyplus.ProdigyPlusScheduleFree"
    own = made(groups_of(weights_of(), 1.0), name, "split_groups_mean=True")
    for number in range(25):
        step(own, number)
    groups = own.optimizer.param_groups
    assert groups[0]["d"] != groups[1]["d"]
    used = {group["name"]: own.optimizer.get_dlr(group) for group in groups}
    assert effective_rates_of(own) == used
    assert used["unet"] == used["textencoder"]


@pytest.mark.parametrize("name", FREE)
def test_the_average_is_what_is_looked_at_and_the_rest_stays(name):
    weights = weights_of()
    own = made(groups_of(weights, 1.0 if catalog.OPTIMIZERS[name].adapts else 1e-2), name)
    for number in range(9):
        step(own, number)
    learnt = [weight.detach().clone() for weight in weights]
    with averaged(own):
        assert not torch.equal(weights[0], learnt[0])
    assert all(torch.equal(a, b) for a, b in zip(weights, learnt, strict=True))
    step(own, 9)  # still in training mode, which the class checks


@pytest.mark.parametrize("name", PAGED)
def test_without_paging_the_plain_one_takes_over_and_says_so(name):
    own = made(groups_of(weights_of(), 1e-4), name)
    if torch.cuda.is_available():
        pytest.skip("paging may work here")
    assert own.notices
    assert f"{name} cannot run here" in own.notices[0]
    assert catalog.OPTIMIZERS[name].fallback in own.notices[0]


def test_what_takes_over_gets_the_arguments_that_it_knows(monkeypatch):
    monkeypatch.setattr("kit.optim.making._cannot_run", lambda *_: "no kernel")
    given = "weight_decay=0.1 betas=0.9,0.99,0.999 alpha=3"
    own = made(groups_of(weights_of(), 1e-4), "bitsandbytes.optim.PagedAdEMAMix8bit", given)
    assert isinstance(own.optimizer, torch.optim.AdamW)
    assert own.optimizer.defaults["weight_decay"] == 0.1
    assert own.notices[0].endswith("AdamW is used instead, without betas, alpha")


def test_another_optimizers_rate_is_told_when_it_takes_over(monkeypatch):
    monkeypatch.setattr("kit.optim.making._cannot_run", lambda *_: "no kernel")
    own = made(groups_of(weights_of(), 2e-5), "PagedLion8bit")
    assert "whose advised rate is 0.0001, not 2e-05" in own.notices[0]


def test_numbers_of_a_group_go_home_with_its_weights():
    away = Parameter(torch.zeros(2, device="meta"))
    optimizer = torch.optim.SGD([away], lr=1)
    state = optimizer.state_dict()
    state["param_groups"][0]["numerator"] = torch.tensor([1.0])
    restore_optimizer(optimizer, state)
    assert optimizer.param_groups[0]["numerator"].device.type == "meta"


# ---------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1")


@pytest.mark.parametrize(
    "name",
    ["AdamWScheduleFree", "Prodigy", pytest.param("DAdaptAdanIP", marks=pytest.mark.long)],
)
def test_a_run_broken_off_after_a_picture_ends_with_the_same_file(model, tmp_path, name):
    class_of(name)
    images = draw_images(tmp_path / "images", count=2)
    rate = catalog.OPTIMIZERS[name].advised_lr

    def settings(out, **changes):
        return toy_settings(
            model, images, tmp_path / out, optimizer_type=name, unet_lr=rate, text_encoder_lr=rate,
            max_train_steps=4, **changes,
        )  # fmt: skip

    drawn = {"sample_prompts": "a ball --s 1 --w 64 --h 64", "sample_every_n_steps": 1,
             "save_every_n_steps": 1}  # fmt: skip
    straight = run(settings("a"))
    first = leave_after(2, settings("b", **drawn))
    assert losses(first) + losses(run(settings("b", **drawn))) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    adapts = catalog.OPTIMIZERS[name].adapts
    told = [event for event in straight if isinstance(event, Stepped)]
    assert all(bool(event.given_rates) == adapts for event in told)
    if adapts:
        assert told[0].given_rates["unet"] == 1
        assert told[0].rates["unet"] == pytest.approx(1e-6)


def test_what_it_was_told_stands_in_the_plan_and_the_file(model, tmp_path):
    images = draw_images(tmp_path / "images", count=2)
    given = {"optimizer_type": "Prodigy", "optimizer_args": "d_coef=0.5, betas=0.9,0.99"}
    plan = planning.plan(
        toy_settings(model, images, tmp_path / "a", unet_lr=1, text_encoder_lr=1, **given)
    )
    assert (
        "optimizer Prodigy with d_coef = 0.5, betas = (0.9, 0.99), rates: U-Net 1, "
        "text encoder 1 (advised: 1)"
    ) in plan.lines()


class Breaks(torch.optim.lr_scheduler.LRScheduler):
    """A schedule that only its own code knows to fail."""

    def get_lr(self):
        return [1e-4 / (self.last_epoch - 2) for _ in self.base_lrs]


def test_a_mistake_is_told_before_the_base_model_is_loaded(model, tmp_path, monkeypatch):
    images = draw_images(tmp_path / "images", count=2)
    monkeypatch.setattr("kit.training.preparation.load_model", None)
    asked = {"lr_scheduler_type": f"{__name__}.Breaks", "max_train_steps": 5}
    plan = planning.plan(toy_settings(model, images, tmp_path / "a", **asked))
    with pytest.raises(SettingsError, match=r"Breaks fails at step 2: .*division by zero"):
        list(train(plan))
    with pytest.raises(SettingsError, match=r"betas = 7,0\.9 is not 2 numbers from 0 to below 1"):
        planning.plan(toy_settings(model, images, tmp_path / "a", optimizer_args="betas=7,0.9"))


def test_the_found_rate_gets_the_tag_that_people_know():
    event = Stepped(1, 0.5, 0.1, 0.1, rates={"unet": 1e-5}, given_rates={"unet": 1.0})
    assert scalars(event)["lr/unet"] == 1.0
    assert scalars(event)["lr/d*lr/unet"] == 1e-5
    plain = scalars(Stepped(1, 0.5, 0.1, 0.1, rates={"unet": 1e-4}))
    assert plain["lr/unet"] == 1e-4
    assert "lr/d*lr/unet" not in plain
