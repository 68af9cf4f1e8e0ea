import gc
import os
import socket
import tempfile

import pytest

# Set before anything reads them. Nothing heavy is imported here, so that tests without torch
# start at once.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
# Toy models are so small that more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = {"127.0.0.1", "::1", "localhost"}
# Where several processes share the tests, these come first, so that none begins its longest last.
# A folder is one piece, for one process: two browsers would wait for each other.
FIRST = (
    "tests/browser/",
    "tests/faults/",
    "tests/effects/test_every_setting.py",
    "tests/training/test_loop.py",
)


def pytest_configure(config):
    """The tests neither see nor fill the caches of the person who runs them."""
    folder = tempfile.TemporaryDirectory(prefix="lora-kit-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ["HF_HOME"] = f"{folder.name}/huggingface"
    os.environ["LORA_KIT_CACHE"] = f"{folder.name}/lora-kit"
    os.environ["MPLCONFIGDIR"] = f"{folder.name}/matplotlib"
    os.environ["IPYTHONDIR"] = f"{folder.name}/ipython"
    for name in (
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_TOKEN",
        "WANDB_API_KEY",
        "CIVITAI_TOKEN",
    ):
        os.environ.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collecting 12,000 tests makes no garbage: looking for it took a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Refuse connections to other machines; kernels talk to this one, and are let through."""
    connect = socket.socket.connect

    def connect_here(self, address):
        if self.family != socket.AF_UNIX and address[0] not in HERE:
            raise PermissionError(f"Tests work without a network; this one tries {address[0]}.")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield


@pytest.fixture(autouse=True, scope="session")
def not_forced_to_disk():
    """A file that was written outlives its process; that it outlives the machine, no test asks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def only_own_garbage():
    """What libraries and 12,000 collected tests have made stays; it is not looked through again.

    The end of a run collects garbage: half a second each time, of which the run's own is a tenth.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """`--dist loadfile`, in the order of `FIRST` instead of that by the number of tests."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class LongOnesFirst(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return next((long for long in FIRST if nodeid.startswith(long)), nodeid.split("::")[0])

    config.option.loadscopereorder = False
    return LongOnesFirst(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(key=lambda item: _rank(item.nodeid))


def _rank(nodeid):
    return next((i for i, long in enumerate(FIRST) if nodeid.startswith(long)), len(FIRST))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The toy pictures with their captions."""
    from tests.support.toys import draw_images

    return draw_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def prepared():
    """Makes runs ready by their settings; what they hold is given back after the test."""
    from kit import planning
    from kit.training.preparation import prepare
    from tests.support.parts import outcome

    all_ready = []

    def made(settings):
        ready, _ = outcome(prepare(planning.plan(settings)))
        all_ready.append(ready)
        return ready

    yield made
    for ready in all_ready:
        ready.close()


def pytest_runtest_setup(item):
    if item.get_closest_marker("long") and "long" not in item.config.option.markexpr:
        pytest.skip("takes long; run it with -m long")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
