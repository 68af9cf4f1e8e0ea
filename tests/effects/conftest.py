import pytest

from kit.families import base_model
from tests.effects.stage import Stage


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    made = Stage(tmp_path_factory.mktemp("stage"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_model, "load_family", lambda *a, **k: made.load_family(*a, **k))
        yield made
