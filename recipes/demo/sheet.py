"""A contact sheet: what the model makes of plain words and of a few edits, for the eye."""

from pathlib import Path

from PIL import Image

from recipes.demo import captions, card, evaluate, export
from recipes.demo.drawing import SIZE_PX, draw

TEXTS = [
    *card.EXAMPLES,
    "a blue circle",
    "a red square on a yellow background",
    "green triangle",
    "a star",
    "a pink heart on a black background",
    "a red house",
    "a yellow tree at sunset",
    "white boat by night",
    "two blue stars",
    "four green circles on a pink background",
    "a black cat at night",
    "an orange flower on a purple background",
    "a star above a house on a blue background",
    "a red circle below a black square",
    "the hills at sunset",
    "a cute purple cat, sunset",
]
EDITS = [
    ("a red house by day", "make it night"),
    ("a red house by day", "make the house blue"),
    ("a green tree at night", "make it sunset"),
    ("a red circle", "make the circle green"),
    ("a red circle", "make the background yellow"),
    ("a cat and a tree by day", "remove the tree"),
    ("a blue square on a pink background", "turn the square into a star"),
    ("three red hearts", "make the hearts purple"),
]


def write(path: Path, columns: int = 8) -> None:
    """Write the sheet: pictures from words, then sources of edits and their results below."""
    editor = export.editing()
    made = evaluate.make(export.generating(editor), TEXTS)
    before = []
    for index, (text, _) in enumerate(EDITS):
        scene = captions.read(text)
        if scene is None:
            raise ValueError(f"not a caption of the demo world: {text!r}")
        before.append(draw(scene, index))
    after = evaluate.make(editor, [instruction for _, instruction in EDITS], before)
    _paste([*made, *before, *after], columns).save(path)


def _paste(cells: list[Image.Image], columns: int) -> Image.Image:
    side = SIZE_PX + 4
    sheet = Image.new("RGB", (columns * side, -(-len(cells) // columns) * side), (24, 24, 28))
    for index, cell in enumerate(cells):
        sheet.paste(cell, (index % columns * side + 2, index // columns * side + 2))
    return sheet


def write_drawings(path: Path, columns: int = 8) -> None:
    """Write what the recipe itself draws for the same words: the model's teacher."""
    scenes = [captions.read(text) for text in TEXTS]
    _paste([draw(scene, seed) for seed, scene in enumerate(scenes) if scene], columns).save(path)
