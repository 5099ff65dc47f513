"""The model card: the text of ``README.md`` beside this module, with the measured figures in it."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FIGURES = HERE / "figures.json"
COLUMNS = ("background", "time", "colour", "kind", "count", "position", "all")
MARK = "<!-- figures -->"
EXAMPLES = [
    "a red house at night",
    "an orange cat by day",
    "a blue boat at sunset",
    "a yellow star on a blue background",
    "three red hearts on a white background",
    "a purple circle to the left of a green square",
    "a pink flower by day",
    "a green tree next to a white house at sunset",
]


def _rows(first: str, rows: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines of a Markdown table: a property a column, what it is about a row."""
    lines = [f"| {first} | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for label, values in rows.items():
        cells = (f"{values[name]:.2f}" if name in values else "-" for name in COLUMNS)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown tables: pictures from words, by form, and edits."""
    names = {
        "model": "**the model**",
        "autoencoder": "ceiling: autoencoder only",
        "renders": "ceiling: true drawings",
    }
    lines = _rows("from words", {label: figures["generate"][row] for row, label in names.items()})
    forms = {f"{form} ({values['number']})": values for form, values in figures["forms"].items()}
    lines += ["", *_rows("the model, by form", forms)]
    lines += ["", "| edit | done | done, and the rest kept | ceiling |", "|---|---|---|---|"]
    for kind, values in figures["edit"].items():
        lines.append(
            f"| {kind} | {values['done']:.2f} | {values['all']:.2f} | {values['ceiling']:.2f} |"
        )
    last = (
        f"{figures['number']} held-out scenes and {figures['number_edits']} held-out edits of each "
        f"kind; {figures['steps']} steps; {figures['seconds_generate']:.2f} s a picture, "
        f"{figures['seconds_edit']:.2f} s an edit on {figures['threads']} CPU threads; trained for "
        f"{figures['trained_steps']:,} steps. The judge of kinds is right in "
        f"{figures['judge']:.3f} of held-out drawings; autoencoder {figures['psnr_db']:.1f} dB."
    )
    return "\n".join([*lines, "", last])


def text() -> str:
    """Return the model card with the figures of the last evaluation, if there was one."""
    body = (HERE / "README.md").read_text(encoding="utf-8")
    if not FIGURES.exists():
        return body.replace(MARK, "_Not measured yet: run `python -m recipes.demo evaluate`._")
    return body.replace(MARK, table(json.loads(FIGURES.read_text(encoding="utf-8"))))
