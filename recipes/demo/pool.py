"""A pool of encoded scene pairs that the denoiser learns from, slowly renewed while it does.

Encoding costs more than drawing, so pictures are encoded once and used often with new wordings;
a few new ones replace the oldest at every step.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from recipes.demo import captions, edits
from recipes.demo.autoencoder import levels_of
from recipes.demo.drawing import draw
from recipes.demo.scenes import sample_training

EDIT_SHARE = 0.35
NO_TEXT_SHARE = 0.1
NO_SOURCE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from: captions, latents to make, latents to start from (or zeros)."""

    texts: list[str]
    wanted: Tensor
    sources: Tensor


def _edit(rng: random.Random) -> edits.Edit:
    while True:
        edit = edits.choose(sample_training(rng), rng)
        if edit is not None and not edit.held_out():
            return edit


class Pool:
    """At most `capacity` edits with both pictures encoded, latents (2, 16, 12, 12) each."""

    def __init__(self, encoder: AutoencoderTiny, capacity: int, rng: random.Random) -> None:
        """Start empty; `encoder` must not change any more."""
        self.encoder, self.capacity, self.rng = encoder, capacity, rng
        self.edits: list[edits.Edit] = []
        self.latents: list[Tensor] = []
        self.next = 0

    def renew(self, number: int) -> None:
        """Draw and encode `number` new pairs; the oldest make room when the pool is full."""
        fresh = [_edit(self.rng) for _ in range(number)]
        pixels = []
        for edit in fresh:
            seed = self.rng.getrandbits(32)
            pixels.append(np.asarray(draw(edit.source, seed)))
            pixels.append(np.asarray(draw(edit.target, seed, edit.without)))
        levels = levels_of(np.stack(pixels)).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            latents = self.encoder.encode(levels).latents.half().contiguous()
        for edit, pair in zip(fresh, latents.split(2), strict=True):
            if len(self.edits) < self.capacity:
                self.edits.append(edit)
                self.latents.append(pair.clone())
            else:
                self.edits[self.next], self.latents[self.next] = edit, pair.clone()
                self.next = (self.next + 1) % self.capacity

    def batch(self, size: int) -> Batch:
        """Return `size` samples: some edits, more captions, some with text or source left out."""
        texts, wanted, sources = [], [], []
        for _ in range(size):
            index = self.rng.randrange(len(self.edits))
            edit, pair = self.edits[index], self.latents[index]
            blind = self.rng.random() < NO_TEXT_SHARE
            if self.rng.random() < EDIT_SHARE:
                text, goal, source = edits.say(edit, self.rng), pair[1], pair[0]
                if self.rng.random() < NO_SOURCE_SHARE:
                    source, blind = torch.zeros_like(source), True
            else:
                after = edit.without < 0 and self.rng.random() < 0.5
                scene = edit.target if after else edit.source
                text, goal = captions.say(scene, self.rng), pair[1 if after else 0]
                source = torch.zeros_like(goal)
            texts.append("" if blind else text)
            wanted.append(goal)
            sources.append(source)
        return Batch(texts, torch.stack(wanted).float(), torch.stack(sources).float())
