"""Main memory: what is free in a container, and the most that was taken."""

import subprocess
import sys
import textwrap

import psutil
import pytest

from nbimg.local import ram

GIB = 2**30


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system's files: control groups, and what a process says of itself."""
    monkeypatch.setattr(ram, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(ram, "_GROUPS", tmp_path / "groups")
    (tmp_path / "proc").mkdir()

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def group(system, place, limit, used, cached=0):
    system(f"groups/{place}/memory.max", f"{limit}\n")
    system(f"groups/{place}/memory.current", f"{used}\n")
    system(f"groups/{place}/memory.stat", f"anon 5\ninactive_file {cached}\n")


def test_the_tightest_group_of_a_container_decides(system):
    system("proc/cgroup", "0::/pod/notebook\n")
    group(system, "pod/notebook", "max", GIB)
    group(system, "pod", 3 * 10**8, 2 * 10**8, cached=10**7)
    assert ram.free_bytes() == 10**8 + 10**7


def test_the_older_kind_of_group_is_read_as_well(system):
    system("proc/cgroup", "5:memory:/docker/x\n1:cpu:/docker/x\n")
    place = "groups/memory/docker/x"
    system(f"{place}/memory.limit_in_bytes", f"{10**8}\n")
    system(f"{place}/memory.usage_in_bytes", f"{4 * 10**7}\n")
    system(f"{place}/memory.stat", "total_inactive_file 0\n")
    assert ram.free_bytes() == 6 * 10**7


def test_a_group_that_took_more_than_it_may_leaves_nothing(system):
    system("proc/cgroup", "0::/\n")
    group(system, ".", 10**8, 2 * 10**8)
    assert ram.free_bytes() == 0


def test_without_a_limit_it_is_what_the_machine_has(system):
    system("proc/cgroup", "0::/\n3:cpuset:/\n")
    group(system, ".", "max", GIB)
    assert ram.free_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.usefixtures("system")
def test_a_system_that_tells_nothing_is_one_without_limits():
    ram._counts.cache_clear()
    assert ram.free_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    ram.begin_peak()
    assert ram.peak_bytes() == pytest.approx(ram.used_bytes(), rel=0.2)
    ram._counts.cache_clear()


@pytest.mark.skipif(not ram._counts(), reason="not run: this system keeps no peak of a process")
def test_the_peak_is_what_was_taken_in_between():
    code = """
        from nbimg.local import ram
        before = ram.used_bytes()
        ram.begin_peak()
        taken = bytearray(b"x" * 160_000_000)  # twice, for a moment
        del taken
        print(ram.peak_bytes() - before, ram.used_bytes() - before)
        ram.begin_peak()
        print(ram.peak_bytes() - before)
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]  # of its own: here much comes and goes
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    peak, left, again = map(int, done.stdout.split())
    assert 300e6 < peak < 400e6
    assert left < 50e6
    assert again < 50e6
