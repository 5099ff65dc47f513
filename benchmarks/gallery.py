"""How a gallery of many images does: first paint, frames while it scrolls, nodes of the page, memory.

    python benchmarks/gallery.py          10,000 images
    python benchmarks/gallery.py --full   50,000 images

A real Chromium shows the gallery's own scripts; its own Python answers over a socket, as a kernel would. Times
of scripts are those of Chromium's trace: all JavaScript between two frames. It needs Chromium and Playwright.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nbimg.notebook.gallery import open_gallery  # noqa: E402
from tests.browser.folder import fill_folder  # noqa: E402
from tests.browser.lab import CHROMIUM_ARGUMENTS, find_chromium  # noqa: E402
from tests.browser.stand import Stand  # noqa: E402

SEEN = """() => {
  window.seen = {};
  const look = () => {
    const photo = document.querySelector(".nbimg-photo:not([hidden]) img:not([hidden])");
    if (photo && photo.complete && photo.naturalWidth) seen.first = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""

SCROLL = """async ({ frames, step }) => {
  const wall = document.querySelector(".nbimg-wall");
  let nodes = 0;
  let blank = 0;
  const gaps = [];
  let last = performance.now();
  for (let frame = 0; frame < frames; frame++) {
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - last);
    last = now;
    wall.scrollTop += step;
    nodes = Math.max(nodes, document.getElementsByTagName("*").length);
    const box = wall.getBoundingClientRect();
    const middle = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    if (middle?.closest(".nbimg-waits")) blank++;
  }
  return { nodes, gaps, blank, top: wall.scrollTop };
}"""

#: What Chromium's trace calls the running of scripts.
SCRIPTS = ("FunctionCall", "FireAnimationFrame", "EventDispatch", "TimerFire", "RunMicrotasks")
FRAME = "Commit"
FRAMES = 300


def share(values: list[float], part: float) -> float:
    """Return the value that a part of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def scripting_ms(trace: dict[str, Any]) -> list[float]:
    """Return how long scripts ran in each frame of the page's main thread."""
    events = [e for e in trace["traceEvents"] if e.get("name") in (*SCRIPTS, FRAME)]
    frames = sorted((e["pid"], e["tid"], e["ts"]) for e in events if e["name"] == FRAME)
    thread = max({f[:2] for f in frames}, key=lambda one: sum(f[:2] == one for f in frames))
    starts = [f[2] for f in frames if f[:2] == thread]
    spans = sorted(
        (e["ts"], e["ts"] + e.get("dur", 0))
        for e in events
        if (e["pid"], e["tid"]) == thread and e["name"] in SCRIPTS and e.get("ph") == "X"
    )
    flat: list[list[float]] = []
    for begin, end in spans:  # calls within calls count once
        if flat and begin < flat[-1][1]:
            flat[-1][1] = max(flat[-1][1], end)
        else:
            flat.append([begin, end])
    spent = [0.0] * len(starts)
    at = 0
    for begin, end in flat:
        while at + 1 < len(starts) and starts[at + 1] <= begin:
            at += 1
        spent[at] += (end - begin) / 1000
    return spent[1:-1]


def heap_bytes(page: Page) -> float:
    """Return what JavaScript holds after the garbage was collected."""
    tools = page.context.new_cdp_session(page)
    tools.send("HeapProfiler.collectGarbage")
    tools.send("Performance.enable")
    metrics = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
    return float(metrics["JSHeapUsedSize"])


def scrolled(page: Page, name: str, step: int) -> dict[str, Any]:
    """Scroll for some seconds; print and return what it took."""
    browser = page.context.browser
    assert browser is not None
    browser.start_tracing(
        page=page, categories=["devtools.timeline", "disabled-by-default-devtools.timeline"]
    )
    found: dict[str, Any] = page.evaluate(SCROLL, {"frames": FRAMES, "step": step})
    spent = scripting_ms(json.loads(browser.stop_tracing()))
    print(
        f"{name:28} scripting a frame: median {share(spent, 0.5):5.2f} ms, p95 {share(spent, 0.95):5.2f} ms, "
        f"longest {max(spent):5.2f} ms; {1000 / (sum(found['gaps']) / FRAMES):.0f} frames/s; "
        f"{found['nodes']:,} nodes at most; middle blank in {found['blank']} of {FRAMES} frames"
    )
    return {**found, "spent": spent}


def measure(count: int) -> None:
    """Fill a folder, open it, scroll it."""
    folder = Path(tempfile.mkdtemp()) / "nbimg-images"
    fill_folder(folder, count)
    os.environ |= {"NBIMG_OUTPUT_DIR": str(folder), "NO_PROXY": "127.0.0.1"}
    gallery = open_gallery()
    looks = gallery.answers()  # what the page asks
    begun = time.perf_counter()
    looks["look"]()
    read_s = time.perf_counter() - begun
    begun = time.perf_counter()
    looks["query"]("fox -night model:flux")
    search_s = time.perf_counter() - begun
    print(
        f"{count:,} tasks: read from the journal in {read_s:.2f} s; a search takes {1000 * search_s:.0f} ms"
    )
    about, buffers = looks["query"]("")
    size = sum(map(len, buffers))
    print(f"what the page gets of all {about['total']:,} images: {size / 1000:.0f} kB")
    with Stand(gallery) as stand, sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=find_chromium(), args=list(CHROMIUM_ARGUMENTS)
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(f"({SEEN})()")
        page.goto(stand.url)
        page.wait_for_function("window.seen?.first")
        print(
            f"first picture {page.evaluate('seen.first') / 1000:.2f} s after the page was asked for"
        )
        page.wait_for_timeout(500)
        print(f"JavaScript heap {heap_bytes(page) / 1e6:.1f} MB before scrolling")
        scrolled(page, "reading (1,500 px/s)", 25)
        scrolled(page, "flicking (7,200 px/s)", 120)
        scrolled(page, "dragging (60,000 px/s)", 1000)
        page.evaluate("document.querySelector('.nbimg-wall').scrollTop = 1e9")
        page.wait_for_timeout(1500)
        print(f"JavaScript heap {heap_bytes(page) / 1e6:.1f} MB after scrolling to the end")
        browser.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="50,000 images")
    measure(50_000 if parser.parse_args().full else 10_000)


if __name__ == "__main__":
    main()
