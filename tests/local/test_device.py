"""Which device is used: the names that are taken, and those that this machine does not have."""

import pytest
import torch

from nbimg.errors import SettingError
from nbimg.local.device import find_device


@pytest.fixture
def cards(monkeypatch):
    """Two CUDA cards, as far as anybody asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_without_a_name_it_is_the_best_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device(None) == find_device("") == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device(None) == "mps"


@pytest.mark.usefixtures("cards")
def test_one_card_has_one_name():
    assert find_device("cuda") == find_device("cuda:0") == find_device(" CUDA ") == "cuda"
    assert find_device("cuda:1") == "cuda:1"
    assert find_device("cpu") == "cpu"


@pytest.mark.usefixtures("cards")
def test_a_card_that_is_not_there_is_one_line():
    with pytest.raises(
        SettingError, match=r"device = 'cuda:2': there are 2 cards, cuda and cuda:1"
    ):
        find_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_torch_does_not_find_is_one_line(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=f"device = '{name}': torch finds none here") as caught:
        find_device(name)
    assert "Leave it empty" in caught.value.hint


def test_a_name_that_means_nothing_is_answered_with_those_that_do():
    with pytest.raises(SettingError, match="is not one of cpu, cuda, mps"):
        find_device("gpu")
