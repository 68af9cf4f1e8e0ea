"""The last word about a run whose own process cannot say it any more."""

from kit.events import Failed, Finished, Noticed, to_line
from kit.runs.last_word import tell_failed
from kit.sinks import read_events


def written(folder, *events, torn=""):
    file = folder / "events.jsonl"
    file.write_text("".join(f"{to_line(event)}\n" for event in events) + torn)
    return file


def test_it_takes_the_place_of_a_line_that_was_torn(tmp_path):
    file = written(tmp_path, Noticed("a"), torn='{"event": "Stepp')
    assert tell_failed(tmp_path, "process 0 was killed")
    assert read_events(file) == [Noticed("a"), Failed("process 0 was killed")]
    assert file.read_text().endswith("\n")


def test_what_has_ended_is_left_alone(tmp_path):
    for last in (Finished(3, "done"), Failed("no memory")):
        file = written(tmp_path, Noticed("a"), last)
        assert not tell_failed(tmp_path, "another reason")
        assert read_events(file)[-1] == last


def test_a_run_that_did_not_begin_gets_no_events(tmp_path):
    assert not tell_failed(tmp_path, "killed")
    assert list(tmp_path.iterdir()) == []
