import asyncio

from kit.ui.form import debounce
from kit.ui.form.debounce import Soon


def test_without_a_loop_it_is_done_at_once():
    done = []
    Soon(lambda: done.append(1))()
    assert done == [1]


def test_a_burst_is_done_once_a_moment_later(monkeypatch):
    monkeypatch.setattr(debounce, "SECONDS", 0.01)
    done = []

    async def type_quickly():
        job = Soon(lambda: done.append(1))
        for _ in range(5):
            job()
        assert done == []
        await asyncio.sleep(0.05)

    asyncio.run(type_quickly())
    assert done == [1]


def test_it_can_be_finished_early_and_is_then_not_done_again(monkeypatch):
    monkeypatch.setattr(debounce, "SECONDS", 0.01)
    done = []

    async def type_and_read():
        job = Soon(lambda: done.append(1))
        job()
        job.finish()
        job.finish()
        await asyncio.sleep(0.05)

    asyncio.run(type_and_read())
    assert done == [1]
