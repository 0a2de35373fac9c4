"""Features of images go to a cache of the test session's own."""

import pytest

pytest.importorskip("PIL", reason="pillow is not installed: pip install 'minimind[vision]'")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    import os

    before = os.environ.get("MINIMIND_CACHE")
    os.environ["MINIMIND_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["MINIMIND_CACHE"]
    else:
        os.environ["MINIMIND_CACHE"] = before


@pytest.fixture(scope="session")
def seeing(tmp_path_factory):
    from vision_doubles import train_to_see

    return train_to_see(tmp_path_factory.mktemp("seeing"))
