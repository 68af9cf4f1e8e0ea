import pytest

from kit.runs.atomic_write import write_atomically


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("old", "new"):
        write_atomically(path, lambda part, text=text: part.write_text(text, "utf-8"))
        assert path.read_text("utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt(), ValueError()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old", "utf-8")

    def fail(part):
        part.write_text("half", "utf-8")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old", "utf-8")
    with pytest.raises(FileNotFoundError):
        write_atomically(path, lambda part: None)
    assert path.read_text("utf-8") == "old"
