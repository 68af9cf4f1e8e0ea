"""One run in two processes, each of which keeps half of the frozen U-Net, over gloo."""

import pytest

from tests.support.tiny import write_tiny
from tests.support.toys import lora, losses, run, same, toy_settings
from tests.training.test_ranks import GATHERED, in_processes

SHARDED = {"shard_base": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


@pytest.fixture(scope="module")
def asked(model, images):
    return lambda out, **changes: toy_settings(model, images, out, **{"epoch": 1} | changes)


CASES = {
    "plain": {},
    "dropouts": {"network_dropout": 0.3, "rank_dropout": 0.3, "module_dropout": 0.4},
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_half_of_the_base_learn_what_one_does(tmp_path, asked, case):
    changes = CASES[case]
    together, alone = tmp_path / "together", tmp_path / "alone"
    events = in_processes(2, asked(together, **changes, **SHARDED), together)
    straight = run(asked(alone, **changes, **GATHERED))
    assert len(losses(straight)) == 3
    assert losses(events) == losses(straight)
    assert same(lora(together), lora(alone))
