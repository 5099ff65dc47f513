import threading
import time

import pytest

from nbimg.backends import registry
from nbimg.backends.base import Context
from nbimg.backends.registry import BUILT_IN, Registry, register_backend
from nbimg.config import Settings
from nbimg.credentials.keys import Keys
from nbimg.errors import SettingError, UnknownNameError


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(registry, "_added", {})
    return Registry(Context(Settings({}), Keys({})))


class Plug:
    def __init__(self, context):
        time.sleep(0.02)
        self.context = context


def test_every_built_in_name_leads_to_a_backend_of_that_name(own):
    for name in BUILT_IN:
        assert own.get(name).name == name
    assert own.names() == tuple(sorted(BUILT_IN))


def test_a_backend_is_made_once_even_when_many_threads_ask(own):
    register_backend("mine", Plug)
    found = []
    threads = [threading.Thread(target=lambda: found.append(own.get("mine"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in found}) == 1
    assert own.made() == (found[0],)


def test_an_unknown_provider_names_the_nearest(own):
    with pytest.raises(UnknownNameError, match="replicate"):
        own.get("replicat")


def test_a_name_that_is_taken_is_only_replaced_when_asked(own):
    with pytest.raises(SettingError, match="demo"):
        register_backend("demo", Plug)
    register_backend("demo", Plug, replace=True)
    assert isinstance(own.get("demo"), Plug)


def test_a_plug_in_of_an_installed_package_is_found_by_its_entry_point(own, monkeypatch):
    class Point:
        def load(self):
            return Plug

    monkeypatch.setattr(registry, "_entry_points", lambda: {"theirs": Point()})
    assert "theirs" in own.names()
    assert isinstance(own.get("theirs"), Plug)
