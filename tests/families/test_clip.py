import itertools
import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel

from kit.errors import SettingsError
from kit.families.clip import (
    END,
    clip_hidden_states,
    clip_penultimate_and_pooled,
    packaged_tokenizer,
)
from tests.support.tiny import text_config

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tokens.json").read_text())
TOKENIZERS = {
    "sd1": packaged_tokenizer(),
    "sd2": packaged_tokenizer("!", splits_pad=True),
    "sdxl1": packaged_tokenizer(),
    "sdxl2": packaged_tokenizer("!"),
}


def written_out(window: list) -> list[int]:
    """A golden window, whose last entry may be a pair: an id and how often it comes."""
    *ids, last = window
    return [*ids, *([last[0]] * last[1] if isinstance(last, list) else [last])]


@pytest.mark.parametrize("family", TOKENIZERS)
@pytest.mark.parametrize("length", ["None", "150", "225"])
def test_ids_are_the_references(family, length):
    captions = [case["caption"] for case in GOLDEN["plain"]]
    max_token_length = 75 if length == "None" else int(length)
    ids_BKN = TOKENIZERS[family].windows(captions, max_token_length=max_token_length)
    for case, ids_KN in zip(GOLDEN["plain"], ids_BKN.tolist(), strict=True):
        expected = case["ids"][length][family]
        if isinstance(expected, str):
            expected = case["ids"][length][expected.removeprefix("=")]
        assert ids_KN == [written_out(window) for window in expected], case["caption"]


def unfolded(weights: list) -> list[float]:
    """Golden weights of a window: numbers, and pairs of a number and how often it comes."""
    pairs = (entry if isinstance(entry, list) else (entry, 1) for entry in weights)
    return [weight for weight, count in pairs for _ in range(count)]


@pytest.mark.parametrize("family", TOKENIZERS)
@pytest.mark.parametrize("length", ["None", "150", "225"])
def test_weighted_ids_and_weights_are_the_references(family, length):
    captions = [case["caption"] for case in GOLDEN["weighted"]]
    max_token_length = 75 if length == "None" else int(length)
    tokenizer = TOKENIZERS[family]
    ids_BKN = tokenizer.windows(captions, max_token_length=max_token_length, weighted=True)
    weights_BKN = tokenizer.weights(captions, max_token_length=max_token_length)
    for case, ids_KN, weights_KN in zip(GOLDEN["weighted"], ids_BKN, weights_BKN, strict=True):
        ids, weights = (case[kind][length][family] for kind in ("ids", "weights"))
        ids = case["ids"][length][ids[1:]] if isinstance(ids, str) else ids
        weights = case["weights"][length][weights[1:]] if isinstance(weights, str) else weights
        assert ids_KN.tolist() == [written_out(window) for window in ids], case["caption"]
        expected = torch.tensor([unfolded(window) for window in weights])
        assert torch.allclose(weights_KN, expected), case["caption"]


def test_curly_quotes_are_straightened_before_splitting():
    tokenizer = packaged_tokenizer()
    curly, straight = tokenizer.windows(
        ["it\u2019s \u201cred\u201d", 'it\'s "red"'], max_token_length=75
    )
    assert torch.equal(curly, straight)


def test_a_length_between_windows_is_refused():
    with pytest.raises(SettingsError, match="max_token_length = 100"):
        packaged_tokenizer().windows(["a"], max_token_length=100)


def encoder() -> CLIPTextModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIPTextModel(text_config(32, 3, "quick_gelu")).eval()


@torch.no_grad()
def test_clip_skip_counts_layers_from_the_end():
    model = encoder()
    ids_BKN = packaged_tokenizer().windows(["a photo", "of sks dog"], max_token_length=75)
    full = model(ids_BKN[:, 0], output_hidden_states=True)
    inner = getattr(model, "text_model", model)
    for skip, states in [
        (0, full.last_hidden_state),
        (1, full.last_hidden_state),
        (2, inner.final_layer_norm(full.hidden_states[-2])),
        (4, inner.final_layer_norm(full.hidden_states[0])),
    ]:
        assert torch.allclose(clip_hidden_states(model, ids_BKN, skip=skip), states, atol=1e-6)
    with pytest.raises(SettingsError, match="clip_skip = 5: this text encoder allows 1 to 4"):
        clip_hidden_states(model, ids_BKN, skip=5)


@torch.no_grad()
def test_windows_are_joined_by_their_inner_states():
    model = encoder()
    ids_BKN = packaged_tokenizer().windows(["a cat, " * 60], max_token_length=225)
    joined = clip_hidden_states(model, ids_BKN, skip=1)
    alone = [clip_hidden_states(model, ids_BKN[:, k : k + 1], skip=1) for k in range(3)]
    assert joined.shape == (1, 227, 32)
    parts = [alone[0][:, :1], *(one[:, 1:-1] for one in alone), alone[2][:, -1:]]
    assert torch.allclose(joined, torch.cat(parts, dim=1), atol=1e-6)


def test_text_encoders_can_learn_through_it():
    model = encoder()
    ids_BKN = packaged_tokenizer().windows(["a cat"], max_token_length=150)
    clip_hidden_states(model, ids_BKN, skip=1).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@torch.no_grad()
def test_the_pooled_state_stands_at_the_first_end_not_at_the_largest_id():
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(0)
    model = CLIPTextModelWithProjection(text_config(32, 2, "gelu")).eval()
    tokenizer = packaged_tokenizer("!")
    eos = tokenizer.inner.convert_tokens_to_ids(END)
    ids_BKN = tokenizer.windows(["a cat", "a black cat"], max_token_length=150)
    _, pooled_BP = clip_penultimate_and_pooled(model, ids_BKN, eos=eos)
    last = model(ids_BKN[:, 0]).last_hidden_state
    expected = model.text_projection(torch.stack([last[0, 3], last[1, 4]]))
    assert torch.allclose(pooled_BP, expected, atol=1e-6)


def test_the_packaged_vocabulary_is_clips_own():
    inner = packaged_tokenizer().inner
    assert len(inner) == 49408
    ids = [inner.bos_token_id, inner.eos_token_id, inner.convert_tokens_to_ids("!")]
    assert ids == [49406, 49407, 0]
    assert list(itertools.islice(inner("a photo of a cat").input_ids, 3)) == [49406, 320, 1125]
