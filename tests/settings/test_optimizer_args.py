import pytest

from kit.settings.optimizer_args import parse_optimizer_args


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("   ", {}),
        ("weight_decay=0.1", {"weight_decay": 0.1}),
        ("weight_decay=0.1 betas=0.9,0.99", {"weight_decay": 0.1, "betas": (0.9, 0.99)}),
        ("weight_decay=0.1, betas=0.9,0.99", {"weight_decay": 0.1, "betas": (0.9, 0.99)}),
        ("betas=0.9,0.99,weight_decay=0.1", {"weight_decay": 0.1, "betas": (0.9, 0.99)}),
        ("betas=(0.9, 0.99) eps=1e-8", {"betas": (0.9, 0.99), "eps": 1e-8}),
        ("betas=[0.9,0.99]", {"betas": [0.9, 0.99]}),
        ('"weight_decay=0.1" "betas=0.9,0.99"', {"weight_decay": 0.1, "betas": (0.9, 0.99)}),
        ("'weight_decay=0.1'", {"weight_decay": 0.1}),
        ("weight_decay = 0.1\nfused = True", {"weight_decay": 0.1, "fused": True}),
        (
            "relative_step=False scale_parameter=true",
            {"relative_step": False, "scale_parameter": True},
        ),
        ("decay_rate=none", {"decay_rate": None}),
        ("d_coef=2", {"d_coef": 2}),
        ("mode=fast", {"mode": "fast"}),
        ("weight_decay=-.5;eps=0", {"weight_decay": -0.5, "eps": 0}),
    ],
)
def test_pairs_are_read_however_they_are_separated(text, values):
    assert parse_optimizer_args(text) == values


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("weight_decay", "'weight_decay' is no name=value"),
        ("0.1", "is no name=value"),
        ("fast weight_decay=0.1", "is no name=value"),
        ("=0.1", "is no name=value"),
        ("weight_decay=", "weight_decay has no value"),
        ("weight_decay= betas=0.9,0.99", "weight_decay has no value"),
        ("weight_decay=0.1 fast", "'0.1 fast' cannot be read"),
        ("betas=(0.9, 0.99", "'(0.9, 0.99' cannot be read"),
        ("betas={[]: 1}", "cannot be read"),
        ("eps=1e-8 eps=1e-6", "eps is given twice"),
    ],
)
def test_what_cannot_be_read_is_named(text, told):
    with pytest.raises(ValueError) as caught:
        parse_optimizer_args(text)
    assert told in str(caught.value)
