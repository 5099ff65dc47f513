"""Who says what a drawn thing is: a small classifier, trained on the recipe's own drawings.

Used for measuring only, never shipped. It sees a square cut around the place where a thing should
be and names one of the kinds or nothing. Its own accuracy on scenes it never saw is reported
beside every figure that rests on it.
"""

import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from recipes.demo import checkpoint
from recipes.demo.autoencoder import levels_of
from recipes.demo.drawing import SIZE_PX, Place, chance, draw, places
from recipes.demo.optimiser import Optimiser
from recipes.demo.scenes import KINDS, Scene, sample

Pixels = NDArray[np.uint8]
SIDE_PX = 40
CLASSES = (*KINDS, "nothing")
PATH = checkpoint.RUNS / "judge.pt"


def cut(picture: Image.Image, place: Place) -> Pixels:
    """Return the square around a place, `SIDE_PX` a side, levels 0-255."""
    x, y, half = place
    reach = 1.2 * half
    box = (max(0, x - reach), max(0, y - reach), min(SIZE_PX, x + reach), min(SIZE_PX, y + reach))
    small = picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX, box=box)
    return np.asarray(small, np.uint8)


def canonical(scene: Scene) -> list[Place]:
    """Return the places of a scene without play."""
    still = chance(0)
    calm = type(still)(((0, 0, 0), (0, 0, 0)), still.clouds, still.stars, (0, 0), (0, 0))
    return places(scene, calm)


def _examples(rng: random.Random, number: int, held_out: bool) -> tuple[Pixels, list[int]]:
    cuts: list[Pixels] = []
    names: list[int] = []
    while len(cuts) < number:
        scene = sample(rng)
        if not scene.things or scene.held_out() != held_out:
            continue
        without = rng.randrange(len(scene.things)) if rng.random() < 0.25 else -1
        picture = draw(scene, rng.getrandbits(32), without)
        owners = [index for index, thing in enumerate(scene.things) for _ in range(thing.count)]
        for index, place in list(zip(owners, canonical(scene), strict=True))[:2]:
            cuts.append(cut(picture, place))
            kind = "nothing" if index == without else scene.things[index].kind
            names.append(CLASSES.index(kind))
    return np.stack(cuts), names


def build() -> nn.Sequential:
    """Return the untrained classifier: input (n, 3, 40, 40), output (n, 11)."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 5, 2, 2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, 2, 1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Conv2d(48, 64, 3, 2, 1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 25, len(CLASSES)),
    )


def train(steps: int = 450, batch: int = 96) -> nn.Sequential:
    """Train the classifier on drawings, some of them blurred and noisy, and keep it."""
    torch.manual_seed(3)
    rng = random.Random(3)
    model = build()
    optimiser = Optimiser(model.named_parameters())
    for step in range(steps):
        cuts, names = _examples(rng, batch, held_out=False)
        levels = levels_of(cuts[:batch])
        soft = functional.avg_pool2d(levels, 3, 1, 1)
        levels = torch.lerp(levels, soft, torch.rand(batch, 1, 1, 1))
        levels += 0.1 * torch.rand(batch, 1, 1, 1) * torch.randn_like(levels)
        loss = functional.cross_entropy(model(levels), torch.tensor(names[:batch]))
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, 2 * (1 - step / steps))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    checkpoint.write(PATH, {"model": model.state_dict()})
    return model.eval()


class Judge:
    """A trained classifier with its own accuracy on held-out drawings (0-1)."""

    def __init__(self, path: Path = PATH) -> None:
        """Load the classifier, or train it the first time."""
        self.model = build()
        state = checkpoint.read(path)
        if state:
            self.model.load_state_dict(state["model"])
            self.model.eval()
        else:
            self.model = train()
        cuts, names = _examples(random.Random(4), 400, held_out=True)
        self.accuracy = float(np.mean(self.names(cuts) == np.array(names)))

    def names(self, cuts: Pixels) -> NDArray[np.int64]:
        """Return class numbers, shape (n,), for cuts of shape (n, 40, 40, 3)."""
        with torch.no_grad():
            classes: NDArray[np.int64] = self.model(levels_of(cuts)).argmax(1).numpy()
        return classes

    def see(self, picture: Image.Image, spots: list[Place]) -> list[str]:
        """Return the kind at each place, or ``nothing``."""
        return [CLASSES[i] for i in self.names(np.stack([cut(picture, spot) for spot in spots]))]
