"""What 100 live images cost: bytes over the websocket, and in the saved notebook, beside the naive ways.

python benchmarks/live.py [--images 100]

Each way runs in a JupyterLab of its own page, in headless Chromium, with pictures of 1024x1024 pixels that
look like photographs to a codec. Needs Chromium, JupyterLab, Playwright and numpy.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from nbimg.testing import Outcome, ReplicateServer, replicate
from tests.browser.lab import CHROMIUM_ARGUMENTS, Lab, find_chromium
from tests.browser.page import Page, write_notebook

SIDE_PX = 1024
KINDS = 10  # different pictures
END_S = 300
READ = "from pathlib import Path\nfiles = sorted(Path({folder!r}).glob('*.png')) * {times}\n"
SHOW = (
    READ + "from IPython.display import Image, display\n"
    "for file in files: display(Image(data=file.read_bytes(), width=256))"
)
BOX = (
    READ + "import ipywidgets as w\nfrom IPython.display import display\n"
    "box = w.GridBox(layout=w.Layout(grid_template_columns='repeat(4, 256px)')); display(box)\n"
    "for file in files: box.children = (*box.children, w.Image(value=file.read_bytes(), width=256))"
)


def picture(seed: int) -> bytes:
    """Return a PNG with shapes of all sizes and the grain of a photograph."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).resize(
                (SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC
            ),
            dtype=float,
        )
        * weight
        for size, weight in ((4, 0.5), (16, 0.3), (64, 0.15), (256, 0.05))
    ]
    grain = rng.normal(0, 3, (SIDE_PX, SIDE_PX, 1))
    target = io.BytesIO()
    whole = np.clip(sum(layers) + grain, 0, 255).astype(np.uint8)  # type: ignore[union-attr]
    Image.fromarray(whole).save(target, "PNG", compress_level=6)
    return target.getvalue()


def measure(browser: Any, lab: Lab, name: str, images: int, *cells: str) -> tuple[int, int]:
    """Run the cells; return frames and bytes that the page was sent by the kernel."""
    write_notebook(lab.notebooks / name, *cells)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(END_S * 1000)
    sizes: list[int] = []

    def count(socket: Any) -> None:
        if "/channels" in socket.url:
            socket.on("framereceived", lambda data: sizes.append(len(data)))

    tab.on("websocket", count)
    page = Page(tab, lab, "lab", name)
    page.wait_for_kernel()
    for number in range(len(cells) - 1):
        page.run(number)
        page.wait_for_end(number)
    before = len(sizes)
    page.run(len(cells) - 1)
    page.wait_for_end(len(cells) - 1)
    if images:
        page.images(len(cells) - 1).first.wait_for(state="attached")
    tab.wait_for_timeout(1000)
    sent = sizes[before:]
    if name.startswith("ours"):
        page.save()
    context.close()
    lab.stop_kernels()
    return len(sent), sum(sent)


def main() -> None:
    """Run each way and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    images = parser.parse_args().images
    pictures = [picture(seed) for seed in range(KINDS)]
    replicate.render_picture = lambda key, *_: pictures[sum(map(ord, str(key))) % KINDS]
    folder = Path(tempfile.mkdtemp())
    for number, data in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(data)
    filled = {"folder": str(folder), "times": max(1, images // KINDS)}
    prompts = "\n".join(f"house number {number}" for number in range(images))
    ours = f"%%imggen --lines -c 4\n{prompts}"
    with ReplicateServer(image_side_px=SIDE_PX) as server, sync_playwright() as play:
        server.expect(Outcome(running_s=0.1, times=None))
        environment = {
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "REPLICATE_API_TOKEN": server.token,
            "NBIMG_REPLICATE_BASE_URL": server.base_url,
        }
        with Lab(Path(tempfile.mkdtemp()), environment) as lab:
            browser = play.chromium.launch(
                executable_path=find_chromium(), args=list(CHROMIUM_ARGUMENTS)
            )
            ways = {
                "nbimg, live grid": ("ours.ipynb", images, "%load_ext nbimg", ours),
                "display(Image)": ("show.ipynb", 0, SHOW.format(**filled)),
                "Image in a GridBox": ("box.ipynb", 0, BOX.format(**filled)),
            }
            print(
                f"{images} images of {SIDE_PX}x{SIDE_PX} pixels, {sum(map(len, pictures)) / KINDS / 1e6:.2f} MB each"
            )
            print(f"{'':20} {'frames':>7} {'MB over the websocket':>22}")
            for name, (file, count, *cells) in ways.items():
                frames, size = measure(browser, lab, file, count, *cells)
                print(f"{name:20} {frames:7} {size / 1e6:22.2f}", flush=True)
            saved = (lab.notebooks / "ours.ipynb").stat().st_size
            naive = sum(len(base64.b64encode(pictures[k % KINDS])) for k in range(images))
            print(
                f"saved notebook: {saved / 1e6:.2f} MB, naive {naive / 1e6:.1f} MB: {saved / naive:.2%} (wanted: at most 2 %)"
            )
            browser.close()


if __name__ == "__main__":
    main()
