import pytest

from kit import basemodel
from tests.effects.stage import Stage


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    made = Stage(tmp_path_factory.mktemp("stage"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basemodel, "load_family", lambda *a, **k: made.load_family(*a, **k))
        yield made
