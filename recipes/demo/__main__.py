"""``python -m recipes.demo``: train, export, evaluate, sheet."""

import argparse
import json
import os
import random
import sys
from pathlib import Path

# Large blocks go back to the heap instead of the system: training allocates the same ones again.
_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.demo",
        description="Make the embedded demo model from nothing but the recipe's own drawings.",
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    train = tasks.add_parser(
        "train", help="train, or go on from the checkpoint, else from the shipped weights"
    )
    train.add_argument("--minutes", type=float, default=90, help="wall time (default 90)")
    train.add_argument(
        "--stage",
        choices=("denoiser", "autoencoder", "decoder"),
        default="denoiser",
        help="denoiser (default; makes an autoencoder first when there is none), autoencoder "
        "(from nothing; a new one needs a new denoiser), decoder (sharper pictures, same "
        "latents)",
    )
    train.add_argument("--pool", type=int, default=16000, help="encoded pairs kept in memory")
    tasks.add_parser("export", help="write the weights into the package")
    evaluate = tasks.add_parser("evaluate", help="measure on held-out scenes, write figures.json")
    evaluate.add_argument("--number", type=int, default=40, help="held-out scenes a form")
    evaluate.add_argument("--edits", type=int, default=24, help="held-out edits of each kind")
    sheet = tasks.add_parser("sheet", help="write a contact sheet of samples")
    sheet.add_argument("path", type=Path)
    sheet.add_argument("--drawings", action="store_true", help="the recipe's drawings instead")
    return parser


def _train(stage: str, minutes: float, capacity: int) -> None:
    from recipes.demo import autoencoder, denoiser, export, pool, words

    os.nice(10)
    if stage == "autoencoder":
        export.AUTOENCODER.unlink(missing_ok=True)
        autoencoder.train(export.AUTOENCODER, minutes, "whole", crop_px=96, batch=16)
        return
    encoder = export.trained_autoencoder()
    if encoder is None:
        autoencoder.train(export.AUTOENCODER, 35, "whole", crop_px=96, batch=16)
        encoder = export.trained_autoencoder()
    if encoder is None:
        raise SystemExit("no autoencoder: its training left no checkpoint")
    if stage == "decoder":
        autoencoder.train(export.AUTOENCODER, minutes, "decoder", batch=6)
        return
    scenes = pool.Pool(encoder, capacity, random.Random())
    print("encoding the first pictures", flush=True)
    while len(scenes.edits) < min(1200, capacity):
        scenes.renew(16)
    denoiser.train(export.DENOISER, scenes, words.tokenizer(), export.trained_denoiser(), minutes)


def main() -> None:
    """Run one task."""
    asked = _arguments().parse_args()
    if asked.task == "train":
        if any(os.environ.get(name) != value for name, value in _ALLOCATOR.items()):
            # Read by the C library at its start only, hence once more.
            os.execve(  # noqa: S606 - this very program
                sys.executable,
                [sys.executable, "-m", "recipes.demo", *sys.argv[1:]],
                {**os.environ, **_ALLOCATOR},
            )
        _train(asked.stage, asked.minutes, asked.pool)
    elif asked.task == "export":
        from recipes.demo import export

        print(f"{export.WEIGHTS}: {export.write() / 1e6:.1f} MB")
    elif asked.task == "evaluate":
        from recipes.demo import card, evaluate

        figures = evaluate.run(asked.number, asked.edits)
        print(json.dumps({key: figures[key] for key in ("generate", "forms", "edit")}, indent=1))
        print(card.table(figures))
    else:
        from recipes.demo import sheet

        (sheet.write_drawings if asked.drawings else sheet.write)(asked.path)


if __name__ == "__main__":
    main()
