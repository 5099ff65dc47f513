import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nbimg.local import threads


class Torch:
    """What torch tells and takes about threads."""

    def __init__(self, count):
        self.count = count

    def get_num_threads(self):
        return self.count

    def set_num_threads(self, count):
        self.count = count


@pytest.fixture
def machine(monkeypatch):
    """A machine of eight cores, with clocks that a test moves."""
    clocks = SimpleNamespace(at=100.0, busy=50.0, own=5.0)
    monkeypatch.setattr(threads, "_affinity", lambda: set(range(8)))
    monkeypatch.setattr(threads, "_allowed", lambda: 8.0)
    monkeypatch.setattr(threads, "_defaults", lambda: {8})
    for name in threads.CHOSEN_BY:
        monkeypatch.delenv(name, raising=False)
    look = staticmethod(lambda: (clocks.at, clocks.busy, clocks.own))
    monkeypatch.setattr(threads.Cores, "_look", look)
    threads._counted.cache_clear()

    def pass_by(seconds, *, others=0.0, own=0.0):
        clocks.at += seconds
        clocks.busy += seconds * (others + own)
        clocks.own += seconds * own

    threads._counted()
    yield pass_by
    threads._counted.cache_clear()


@pytest.mark.parametrize(
    ("others", "count"), [(0, 8), (0.1, 8), (0.5, 7), (1, 7), (3.9, 4), (7, 1), (8, 1), (20, 1)]
)
def test_a_thread_is_not_started_for_a_core_that_others_use(machine, others, count):
    machine(2.0, others=others, own=3)
    torch = Torch(8)
    with threads.shared(torch) as used:
        assert used == torch.count == count
    assert torch.count == 8


def test_it_follows_what_the_others_do(machine):
    torch = Torch(8)
    for others, count in ((0, 8), (4, 4), (0, 8)):
        machine(1.0, others=others, own=8 - others)
        with threads.shared(torch) as used:
            assert used == count


def test_a_look_right_after_the_last_one_says_the_same(machine):
    torch = Torch(8)
    machine(1.0, others=6)
    with threads.shared(torch) as used:
        assert used == 2
    machine(0.01, others=0)
    with threads.shared(torch) as used:
        assert used == 2


def test_the_number_comes_back_after_a_failure(machine):
    machine(1.0, others=6)
    torch = Torch(8)
    with pytest.raises(ZeroDivisionError), threads.shared(torch):
        raise ZeroDivisionError
    assert torch.count == 8


@pytest.mark.parametrize("name", threads.CHOSEN_BY)
def test_a_number_in_the_environment_stays(machine, monkeypatch, name):
    monkeypatch.setenv(name, "8")
    machine(1.0, others=6)
    with threads.shared(Torch(8)) as used:
        assert used == 8


def test_a_number_that_was_set_in_torch_stays(machine):
    machine(1.0, others=6)
    with threads.shared(Torch(5)) as used:
        assert used == 5


def test_a_real_machine_has_some_cores():
    free = threads.Cores().free()
    assert -1 < free <= (os.cpu_count() or 1)
    assert 0 < threads._allowed() <= (os.cpu_count() or 1)


def test_openmp_is_told_to_wait_gently_and_the_environment_stays_as_it_was():
    code = """
import os
from nbimg.local import threads
before = dict(os.environ)
with threads.gentle():
    assert os.environ["GOMP_SPINCOUNT"] == threads.SPINS
assert dict(os.environ) == before
os.environ["OMP_WAIT_POLICY"] = "active"
with threads.gentle():
    assert "GOMP_SPINCOUNT" not in os.environ
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=_plain())


def _plain():
    theirs = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", *threads.CHOSEN_BY)
    return {name: value for name, value in os.environ.items() if name not in theirs}
