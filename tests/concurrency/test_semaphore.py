import asyncio
import threading

import pytest

import nbimg
from nbimg.concurrency import semaphore
from nbimg.errors import SettingError, UnknownNameError


@pytest.fixture(autouse=True)
def no_semaphores(monkeypatch):
    monkeypatch.setattr(semaphore, "_known", {})


def test_a_registered_one_is_found_by_name_and_works_in_both_forms():
    made = nbimg.register_semaphore("gpu", 2)
    found = nbimg.get_semaphore("gpu")
    assert found is made

    async def held():
        async with found:
            return found.held

    with found:
        assert found.held == 1
        assert asyncio.run(held()) == 2
    assert (found.name, found.limit, found.scope, found.held, found.waiting) == (
        "gpu",
        2,
        "kernel",
        0,
        0,
    )
    assert "'gpu': 0 of 2 held" in repr(found)


def test_all_are_listed_and_the_list_cannot_be_changed():
    nbimg.register_semaphore("gpu", 2)
    nbimg.get_semaphore("replicate")
    listed = nbimg.semaphores()
    assert list(listed) == ["gpu", "replicate"]
    with pytest.raises(TypeError):
        listed["x"] = None
    nbimg.register_semaphore("disk", 1)
    assert "disk" not in listed


def test_registering_again_changes_the_one_that_there_is():
    first = nbimg.register_semaphore("gpu", 2)
    assert nbimg.register_semaphore("gpu", 5) is first
    assert first.limit == 5


def test_a_name_that_is_unknown_names_its_nearest():
    nbimg.register_semaphore("sketches", 2)
    with pytest.raises(UnknownNameError, match=r"no semaphore 'sketchs'.*sketches") as told:
        nbimg.get_semaphore("sketchs")
    assert "register_semaphore('sketchs', 4)" in str(told.value)
    with pytest.raises(UnknownNameError, match="replicate"):
        nbimg.get_semaphore("replicat")


@pytest.mark.parametrize("limit", [0, -3, 1.5, "4", None, True])
def test_a_limit_that_means_nothing_is_refused_and_nothing_is_registered(limit):
    with pytest.raises(SettingError, match=r"limit .* of semaphore 'gpu'"):
        nbimg.register_semaphore("gpu", limit)
    assert not nbimg.semaphores()


@pytest.mark.parametrize("scope", ["redis:127.0.0.1", "http://127.0.0.1", "world", ""])
def test_a_scope_that_does_not_exist_is_refused_and_those_that_do_are_named(scope):
    with pytest.raises(SettingError, match="kernel, host, redis://HOST"):
        nbimg.register_semaphore("gpu", 2, scope)
    assert not nbimg.semaphores()


def test_threads_that_ask_at_once_get_the_same():
    for number in range(50):
        found, ready = [], threading.Barrier(4)

        def ask(name=f"s{number}", found=found, ready=ready):
            ready.wait()
            found.append(semaphore.account_semaphore(name, 2))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1


def test_a_name_that_is_not_there_is_answered_with_those_that_are(monkeypatch):
    monkeypatch.setattr(semaphore, "_known", {})
    semaphore.register_semaphore("gpu", 1)
    with pytest.raises(UnknownNameError) as caught:
        semaphore.get_semaphore("nope")
    assert str(caught.value) == (
        "no semaphore 'nope'. There are demo, gpu, hunyuan, local, openai, replicate, speedpix; "
        "nbimg.register_semaphore('nope', 4) makes one."
    )
