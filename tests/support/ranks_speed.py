"""What two processes bring on this machine, by hand: python -m tests.support.ranks_speed

One process that accumulates two batches, two that take one each, and two that keep half of the
base each, in turn, on the embedded base: seconds a step, and what of it the sum over both takes
from when the later one comes.
"""

import statistics
import tempfile
import time
from pathlib import Path

from kit.demo import settings as demo
from kit.events import Stepped
from kit.sinks import read_events
from kit.training.ranks import Ranks
from tests.support import ranks

STEPS, WARM = 30, 5
LEAN = {
    "sample_prompts": "",
    "sample_every_n_epochs": 0,
    "sample_every_n_steps": 0,
    "sample_at_first": False,
    "save_every_n_epochs": 0,
    "max_train_steps": STEPS,
}


def timed(folder: Path, count: int, *, sharded: bool = False) -> tuple[float, float]:
    """Median seconds of a step, and of its sum; 0 where there is none."""

    def prepare(rank: int) -> None:
        whole = Ranks.add_up

        def add_up(self, buffer):
            began = time.monotonic()
            whole(self, buffer)
            with (folder / f"{rank}.times").open("a") as file:
                file.write(f"{began} {time.monotonic()}\n")

        Ranks.add_up = add_up

    settings = demo().replace(
        output_dir=str(folder),
        output_name="m",
        gradient_accumulation_steps=2 // count,
        shard_base=sharded,
        **LEAN,
    )
    ended = ranks.train_in(count, settings, folder / "logs", prepare=prepare)
    assert [each.status for each in ended] == [0] * count, ended
    told = read_events(folder / "m.run" / "events.jsonl")
    steps = [event.seconds for event in told if isinstance(event, Stepped)]
    if count == 1:
        return statistics.median(steps[WARM:]), 0.0
    lines = [(folder / f"{rank}.times").read_text().splitlines() for rank in range(count)]
    rows = [[tuple(map(float, line.split())) for line in each] for each in lines]
    sums = [max(e for _, e in row) - max(b for b, _ in row) for row in zip(*rows, strict=True)]
    return statistics.median(steps[WARM:]), statistics.median(sums[WARM:])


def main() -> None:
    """Both in turn, twice."""
    ranks.LONGEST = 900.0
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2):
            for count, sharded in ((1, False), (2, False), (2, True)):
                place = Path(folder) / f"{turn}-{count}-{sharded}"
                seconds, summed = timed(place, count, sharded=sharded)
                share = f", the sum {1000 * summed:.1f} ms ({summed / seconds:.1%})" * (count > 1)
                name = f"{count} processes{', sharded' * sharded}"
                print(f"{name}: {seconds:.3f} s a step{share}", flush=True)


if __name__ == "__main__":
    main()
