import pytest

from tests.support.pictures import draw


@pytest.fixture
def one(tmp_path):
    """A folder 10_cat with one sound picture and its caption."""
    draw(tmp_path / "10_cat" / "sound.png")
    (tmp_path / "10_cat" / "sound.txt").write_text("a cat", "utf-8")
    return tmp_path
