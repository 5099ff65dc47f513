"""What every test gets: a folder of its own, no key, no waiting, and a local Replicate when asked for."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: two threads that share a core collapse

# no test looks into the keyring of whoever runs it
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"

import pytest

from nbimg import config, session
from nbimg.concurrency import semaphore
from nbimg.config import Settings
from nbimg.credentials.keys import Keys
from nbimg.engine import pace
from nbimg.testing import ReplicateServer


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """A temporary folder, no provider's variables, no proxy, and waits that vanish."""
    for name in list(os.environ):
        if name.startswith(
            ("NBIMG_", "REPLICATE_", "OPENAI_", "HUNYUAN_", "SPEEDPIX_")
        ) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBIMG_RETRY_MIN_S", "0.01")
    monkeypatch.setenv("NBIMG_RETRY_MAX_S", "0.02")
    monkeypatch.setattr(pace, "FIRST_S", 0.01)
    monkeypatch.setattr(pace, "SHORTEST_S", 0.01)
    monkeypatch.setattr(session, "_default", None)
    monkeypatch.setattr(semaphore, "_known", {})
    config.kernel.cache_clear()
    yield
    if session._default is not None:
        session._default.close()


@pytest.fixture
def server(monkeypatch):
    """A local Replicate that the default session talks to; the file host never sees the key."""
    with ReplicateServer() as running:
        monkeypatch.setenv("NBIMG_REPLICATE_BASE_URL", running.base_url)
        monkeypatch.setenv("REPLICATE_API_TOKEN", running.token)
        yield running
        assert not running.leaks


@pytest.fixture
def sessions():
    """Make sessions with settings of their own; all are closed at the end."""
    made = []

    def make(**environ):
        environ = {**os.environ, **environ}
        made.append(session.Session(Settings(environ), Keys(environ)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=12, help="random points of kill -9")


def pytest_generate_tests(metafunc):
    if "kill_number" in metafunc.fixturenames:
        metafunc.parametrize("kill_number", range(metafunc.config.getoption("kills")))
