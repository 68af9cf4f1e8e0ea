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
