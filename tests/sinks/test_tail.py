"""Following a file of events that another process writes."""

from kit.events import to_line
from kit.sinks.tail import Tail
from tests.ui.runs import whole_run

EVENTS = list(whole_run(30))


def write(file, events, mode="a"):
    with file.open(mode, encoding="utf-8") as lines:
        lines.write("".join(f"{to_line(event)}\n" for event in events))


def test_only_whole_lines_are_read_and_each_once(tmp_path):
    file = tmp_path / "events.jsonl"
    write(file, EVENTS[:3])
    tail = Tail(file)
    assert tail.new() == (EVENTS[:3], False)
    line = to_line(EVENTS[3])
    with file.open("a", encoding="utf-8") as lines:
        lines.write(line[:20])
        lines.flush()
        assert tail.new() == ([], False)
        lines.write(line[20:] + "\n")
    assert tail.new() == ([EVENTS[3]], False)


def test_a_file_that_was_written_anew_and_is_longer_by_now_is_told_anew(tmp_path):
    file = tmp_path / "events.jsonl"
    write(file, EVENTS[:6])
    tail = Tail(file)
    tail.new()
    again = [*EVENTS[:2], *EVENTS[8:20]]
    write(file, again, mode="w")
    assert tail.new() == (again, True)
    write(file, EVENTS[20:22])
    assert tail.new() == (EVENTS[20:22], False)
