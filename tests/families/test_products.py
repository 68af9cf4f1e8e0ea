"""Products with frozen matrices on a CPU: the same numbers by whichever library computes them."""

import pytest
import torch
from torch.nn import functional

from kit.families import products
from kit.families.streaming import ALIGNMENT, MATRIX_ALIGNMENT
from tests.families.test_streaming import begun

SHAPES = [(1, 64, 96), (16, 64, 96), (77, 768, 320), (128, 320, 1280)]


@pytest.fixture(params=["oneDNN", "torch"])
def library(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(products, "is_there", lambda: False)
    elif not products.is_there():
        pytest.skip("this torch, or this processor, has no such product")
    return request.param


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_products_are_those_of_the_formula(library, rows, inputs, outputs, with_bias):
    matrix, bias = torch.randn(outputs, inputs), torch.randn(outputs) if with_bias else None
    given, gradient = torch.randn(rows, inputs), torch.randn(rows, outputs)
    exact = given.double() @ matrix.double().T
    exact = exact + bias.double() if with_bias else exact
    exact_back = gradient.double() @ matrix.double()
    before = torch.randn(rows, inputs)
    added = before.clone()
    products.add_back(added, gradient, matrix)
    for found, expected in (
        (products.linear(given, matrix, bias), exact),
        (products.back(gradient, matrix), exact_back),
        (added, before + exact_back),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-4)


def test_other_precisions_are_left_to_torch():
    matrix, given = torch.randn(96, 64).bfloat16(), torch.randn(32, 64).bfloat16()
    expected = functional.linear(given, matrix)
    assert torch.equal(products.linear(given, matrix, None), expected)


def test_the_quicker_library_is_asked_where_it_is_there(library, monkeypatch):
    asked = []
    real = products._product
    monkeypatch.setattr(products, "_product", lambda *a: asked.append(len(a[0])) or real(*a))
    for rows in (products.FEWEST_ROWS - 1, products.FEWEST_ROWS):
        products.linear(torch.randn(rows, 64), torch.randn(96, 64), None)
        products.back(torch.randn(rows, 96), torch.randn(96, 64))
    assert asked == ([products.FEWEST_ROWS] * 2 if library == "oneDNN" else [])


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES[1:])
def test_bits_do_not_depend_on_where_the_matrix_begins(library, rows, inputs, outputs):
    matrix, given = torch.randn(outputs, inputs), torch.randn(rows, inputs)
    gradient, found = torch.randn(rows, outputs), []
    for off in range(0, ALIGNMENT, MATRIX_ALIGNMENT):
        placed = begun(matrix, off)
        found.append((products.linear(given, placed, None), products.back(gradient, placed)))
    for forward, backward in found[1:]:
        assert torch.equal(forward, found[0][0])
        assert torch.equal(backward, found[0][1])
