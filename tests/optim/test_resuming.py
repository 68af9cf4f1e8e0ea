"""An optimizer goes on from its state bit for bit; tests/optim/resuming.py has the whole matrix."""

import pytest

from tests.optim.resuming import PRECISIONS, differing

PLUS = "prodigyplus.ProdigyPlusScheduleFree"
CASES = [
    (PLUS, "fp32"),  # keeps averages in bf16 beside weights in fp32
    (PLUS, "full_bf16"),
    ("Adafactor", "full_bf16"),  # keeps averages in fp32 beside weights in bf16
    ("Adafactor", "full_fp16"),
    ("AdamW", "fp32"),
    ("SGDNesterov8bit", "fp32"),
    ("SGDNesterov8bit", "full_bf16"),
    ("pytorch_optimizer.CAME", "full_bf16"),
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_it_goes_on_bit_for_bit(name, precision):
    assert differing(name, PRECISIONS[precision]) == []
