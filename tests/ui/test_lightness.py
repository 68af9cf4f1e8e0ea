"""What a long run sends to the page, in bytes and messages."""

import pytest

from kit.ui import Dashboard
from kit.ui.charts import CHARTS
from tests.ui.runs import whole_run

pytestmark = pytest.mark.usefixtures("kernel")
STEPS = 10_000
LARGEST = ("Loss", "Loss by noise level")  # what is seen at first, and what has the most points


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def parts_of(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts_of(child)


@pytest.mark.parametrize(
    "view", [pytest.param(v, marks=[] if v in LARGEST else pytest.mark.long) for v in CHARTS]
)
def test_ten_thousand_steps_of_a_second_keep_the_page_light(view):
    clock, sent = Clock(), []
    dashboard = Dashboard(clock=clock)
    for widget in parts_of(dashboard.root):
        if widget.has_trait("value"):
            widget.observe(lambda change: sent.append(len(str(change["new"]))), names="value")
    dashboard.view.value = view
    sent.clear()
    for event in whole_run(STEPS):
        dashboard(event)
        clock.now += 1
    page = sum(len(str(w.value)) for w in parts_of(dashboard.root) if w.has_trait("value"))
    print(
        f"{view}: {len(sent)} updates, {sum(sent) / 1e6:.1f} MB; the page holds {page / 1e3:.0f} kB"
    )
    assert max(sent) < 32_000
    assert sum(sent) / STEPS < 6_000  # bytes a second
    assert page < 60_000


def test_fast_steps_send_no_more_than_slow_ones():
    clock, sent = Clock(), []
    dashboard = Dashboard(clock=clock)
    dashboard.chart.observe(lambda change: sent.append(clock.now), names="value")
    for event in whole_run(STEPS):
        dashboard(event)
        clock.now += 0.001
    assert len(sent) <= 12
