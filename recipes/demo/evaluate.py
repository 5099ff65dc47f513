"""Figures of the model on held-out scenes, with the ceilings of the rules and the autoencoder.

Fixed seeds: the same weights give the same figures. Prompts, scenes and source pictures come from
the part of the world that training never sees.
"""

import json
import random
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image

from recipes.demo import autoencoder, captions, card, checkpoint, edits, export, scenes
from recipes.demo.drawing import draw
from recipes.demo.judge import Judge
from recipes.demo.measure import check

BATCH = 8
Rows = list[dict[str, bool]]
FORMS = ("one in a landscape", "one on a colour", "two to four of one", "two things")
DONE = {
    "recolour": ("colour",),
    "background": ("background",),
    "time": ("time",),
    "remove": ("gone",),
    "swap": ("kind",),
}


def form_of(scene: scenes.Scene) -> str:
    """Return which of `FORMS` a scene is."""
    if len(scene.things) == 2:
        return "two things"
    if scene.things[0].count > 1:
        return "two to four of one"
    return "one in a landscape" if scene.time else "one on a colour"


def held_out_scenes(number: int) -> list[scenes.Scene]:
    """Return held-out scenes, `number` of each form, all different as far as there are enough."""
    rng = random.Random(101)
    found: dict[str, dict[str, scenes.Scene]] = {form: {} for form in FORMS}
    for _ in range(4000 * number):
        if all(len(group) == number for group in found.values()):
            break
        scene = scenes.sample(rng)
        if scene.held_out() and len(found[form_of(scene)]) < number:
            found[form_of(scene)][scene.key()] = scene
    return [scene for group in found.values() for scene in group.values()]


def held_out_edits(kind: str, number: int) -> list[edits.Edit]:
    """Return `number` held-out edits of one kind."""
    rng = random.Random(102)
    found: list[edits.Edit] = []
    while len(found) < number:
        edit = edits.choose(scenes.sample(rng), rng, kind)
        if edit is not None and edit.held_out():
            found.append(edit)
    return found


def shares(rows: Rows) -> dict[str, float]:
    """Return the share of rows in which each property that applies is right."""
    names = {name for row in rows for name in row}
    return {
        name: float(np.mean([row[name] for row in rows if name in row])) for name in sorted(names)
    }


def generators(numbers: Iterable[int]) -> list[torch.Generator]:
    """Return one generator for each seed, so that batches do not change pictures."""
    return [torch.Generator().manual_seed(1000 + number) for number in numbers]


def make(
    pipeline: Any,
    texts: list[str],
    sources: list[Image.Image] | None = None,
    steps: int = export.STEPS,
    guidance: float | None = None,
) -> list[Image.Image]:
    """Make one picture for each text, from `sources` if there are any."""
    made: list[Image.Image] = []
    for first in range(0, len(texts), BATCH):
        part = slice(first, first + BATCH)
        luck = generators(range(first, first + len(texts[part])))
        call: dict[str, Any]
        if sources is None:
            call = {"guidance_scale": guidance or export.GUIDANCE}
        else:
            call = {
                "image": sources[part],
                "guidance_scale": guidance or export.EDIT_GUIDANCE,
                "image_guidance_scale": export.IMAGE_GUIDANCE,
            }
        made += pipeline(texts[part], generator=luck, num_inference_steps=steps, **call).images
    return made


def through(model: Any, pictures: list[Image.Image]) -> list[Image.Image]:
    """Return pictures encoded and decoded."""
    levels = autoencoder.levels_of(np.stack([np.asarray(each) for each in pictures]))
    with torch.no_grad():
        made = torch.cat([model.decoder(model.encoder(part)) for part in levels.split(BATCH)])
    bytes_ = ((made.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in bytes_]


def seconds(pipeline: Any, text: str, sources: list[Image.Image] | None = None) -> float:
    """Return the seconds of one picture: the best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        make(pipeline, [text], sources)
        times.append(time.perf_counter() - start)
    return min(times)


def run(number: int = 40, number_edits: int = 24) -> dict[str, Any]:
    """Measure, write ``figures.json`` and return the figures."""
    judge = Judge()
    rng = random.Random(103)
    editor = export.editing()
    maker = export.generating(editor)
    asked = held_out_scenes(number)
    truth = [draw(scene, index) for index, scene in enumerate(asked)]
    texts = [captions.say(scene, rng) for scene in asked]
    rows = {
        "model": make(maker, texts),
        "autoencoder": through(editor.vae, truth),
        "renders": truth,
    }
    figures: dict[str, Any] = {
        "generate": {
            name: shares(
                [
                    check(picture, scene, judge)
                    for picture, scene in zip(pictures, asked, strict=True)
                ]
            )
            for name, pictures in rows.items()
        },
        "forms": {},
        "edit": {},
    }
    checked = [
        check(picture, scene, judge) for picture, scene in zip(rows["model"], asked, strict=True)
    ]
    for form in FORMS:
        these = [row for row, scene in zip(checked, asked, strict=True) if form_of(scene) == form]
        figures["forms"][form] = {**shares(these), "number": len(these)}
    for kind in edits.EDITS:
        figures["edit"][kind] = _edit_figures(editor, judge, kind, number_edits, rng)
    state = checkpoint.read(export.DENOISER)
    figures |= {
        "number": len(asked),
        "number_edits": number_edits,
        "steps": export.STEPS,
        "guidance": export.GUIDANCE,
        "judge": judge.accuracy,
        "psnr_db": autoencoder.psnr(editor.vae),
        "threads": torch.get_num_threads(),
        "seconds_generate": seconds(maker, texts[0]),
        "seconds_edit": seconds(editor, "make it night", truth[:1]),
        "trained_steps": state["step"] if state else 0,
    }
    card.FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def _edit_figures(
    editor: Any, judge: Judge, kind: str, number: int, rng: random.Random
) -> dict[str, float]:
    chosen = held_out_edits(kind, number)
    before = [draw(edit.source, index) for index, edit in enumerate(chosen)]
    after = [draw(edit.target, index, edit.without) for index, edit in enumerate(chosen)]
    made = make(editor, [edits.say(edit, rng) for edit in chosen], before)

    def judged(pictures: list[Image.Image]) -> Rows:
        return [
            check(picture, edit.target, judge, edit.without)
            for picture, edit in zip(pictures, chosen, strict=True)
        ]

    rows = judged(made)
    done = [all(row[name] for name in DONE[kind]) for row in rows]
    ceiling = shares(judged(after))["all"]
    return {"done": float(np.mean(done)), "all": shares(rows)["all"], "ceiling": ceiling}
