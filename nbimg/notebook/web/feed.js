// What a panel makes and has made: a run each, the newest on top, its tiles filled as the images are there. Stage:
// inside of the panel. Comes in: the kernel's messages. Goes out: what is opened, stopped, taken up again.

import { button, fill, h, shorten } from "./dom.js";
import { dragsOut } from "./drag.js";
import { Kernel, blobUrl } from "./kernel.js";

const UNDER_WAY = ["queued", "running", "waiting"];

/** @typedef {{state: string, word: string, said: string, caption: string, share: number | null, preview: boolean,
 *   width?: number, height?: number, seed?: number | null, key?: string, kind?: string, number?: number | null,
 *   url?: string}} Tile */
/** @typedef {{id: string, form: any, at: number, tiles: Tile[], el: HTMLElement, grid: HTMLElement,
 *   line: HTMLElement, bar: HTMLProgressElement, stop: HTMLButtonElement, nodes: HTMLElement[], done: boolean}} Run */

export class Feed {
  /**
   * @param {Kernel} kernel
   * @param {{open: (runs: Run, place: number) => void, reuse: (form: any) => void, cell: (form: any) => void, done: (job: any) => void}} acts
   */
  constructor(kernel, acts) {
    this.kernel = kernel;
    this.acts = acts;
    /** @type {Map<string, Run>} */
    this.runs = new Map();
    this.nothing = h("div", { class: "nbimg-nothing" }, h("p", null, "What you make appears here."), h("p", { class: "nbimg-help" }, "{a|b} in the prompt makes a grid, {name} is a variable of the notebook."));
    this.el = h("section", { class: "nbimg-feed", "aria-label": "Made with this panel", tabindex: "0" }, this.nothing);
    dragsOut(this.el, (event) => this.dragged(event), async (numbers) => (await kernel.ask("refer_to", { numbers })).value);
    kernel.on("run", (run) => this.begin(run));
    kernel.on("tiles", (told, buffers) => this.tiles(told, buffers));
    kernel.on("numbers", (told) => this.numbers(told));
    kernel.on("job", (job) => this.job(job));
  }

  /** Show what was there before the page was loaded. */
  async load() {
    const { value, buffers } = await this.kernel.ask("runs");
    let at = 0;
    const urls = value.map((/** @type {any} */ run) => run.tiles.map(() => (buffers[at++]?.byteLength ? blobUrl(buffers[at - 1], "image/webp") : "")));
    for (let k = value.length - 1; k >= 0; k--) {
      value[k].tiles.forEach((/** @type {Tile} */ tile, /** @type {number} */ place) => (tile.url = urls[k][place]));
      this.begin(value[k]);
      if ("done" in value[k]) this.job(value[k], true);
    }
  }

  /** @param {any} told */
  begin(told) {
    if (this.runs.has(told.id)) return;
    const prompt = told.form.prompt.trim();
    const bar = h("progress", { max: "1", value: "0", "aria-label": "Progress" });
    const line = h("span", { class: "nbimg-standing" }, "waiting");
    const stop = button("stop", "Stop", () => (this.kernel.ask("cancel", { job: told.id }), (stop.disabled = true)), { words: true });
    const grid = h("div", { class: "nbimg-tiles", role: "list" });
    const el = h(
      "article",
      { class: "nbimg-run", "aria-label": shorten(prompt, 60) },
      h(
        "header",
        null,
        h("p", { class: "nbimg-asked", dir: "auto", title: prompt }, shorten(prompt, 180)),
        h("div", { class: "nbimg-bar" }, stop, button("history", "Use these settings", () => this.acts.reuse(told.form)), button("copy", "Copy as cell", () => this.acts.cell(told.form)), button("close", "Take off the panel", () => this.drop(told.id))),
      ),
      h("div", { class: "nbimg-state" }, bar, line),
      grid,
    );
    /** @type {Run} */
    const run = { ...told, el, grid, line, bar, stop, nodes: [], done: false };
    run.nodes = run.tiles.map((tile, place) => this.node(run, tile, place));
    fill(grid, run.nodes);
    this.runs.set(told.id, run);
    this.nothing.hidden = true;
    this.el.prepend(el);
    this.el.scrollTop = 0;
  }

  /** @param {Run} run @param {Tile} tile @param {number} place */
  node(run, tile, place) {
    const ratio = tile.width && tile.height ? tile.width / tile.height : guess(run.form);
    const style = `--ratio:${Math.max(0.4, Math.min(3, ratio))}`;
    const cell = h("div", { class: "nbimg-place", style, role: "listitem", "data-state": tile.state, "data-place": place, draggable: "true" });
    if (tile.url && !tile.preview) cell.append(this.made(run, tile, place));
    else fillUnmade(cell, tile);
    return cell;
  }

  /** @param {Run} run @param {Tile} tile @param {number} place */
  made(run, tile, place) {
    const words = `${tile.caption}${tile.seed === null || tile.seed === undefined ? "" : `, seed ${tile.seed}`}`;
    const mark = tile.state === "ok" && tile.word.startsWith("✓") ? "" : tile.word;
    return h(
      "button",
      { type: "button", class: "nbimg-made", "aria-label": `Open: ${words}${mark ? `, ${mark}` : ""}`, title: words, onclick: () => this.acts.open(run, place) },
      h("img", { src: tile.url, alt: "", draggable: "false" }),
      tile.kind === "video" ? h("span", { class: "nbimg-play", "aria-hidden": "true" }, "▶") : null,
      mark ? h("span", { class: "nbimg-mark", "aria-hidden": "true" }, mark) : null,
    );
  }

  /** @param {any} told @param {DataView[]} buffers */
  tiles(told, buffers) {
    const run = this.runs.get(told.id);
    if (!run) return;
    for (const [slot, about] of Object.entries(told.tiles)) {
      const place = Number(slot);
      const before = run.tiles[place];
      const tile = (run.tiles[place] = { .../** @type {any} */ (about), url: before?.url });
      const fresh = buffers[told.pictures.indexOf(place)];
      if (fresh) {
        if (before?.url) URL.revokeObjectURL(before.url);
        tile.url = fresh.byteLength ? blobUrl(fresh, "image/webp") : undefined;
      }
      const cell = run.nodes[place];
      if (cell && UNDER_WAY.includes(before?.state) && UNDER_WAY.includes(tile.state)) fillUnmade(cell, tile);
      else {
        const node = this.node(run, tile, place);
        cell?.replaceWith(node);
        run.nodes[place] = node;
      }
    }
  }

  /** @param {{id: string, numbers: (number | null)[]}} told */
  numbers(told) {
    this.runs.get(told.id)?.tiles.forEach((tile, place) => (tile.number = told.numbers[place]));
  }

  /** The number of the picture that is dragged, if it has one yet. @param {Event} event */
  dragged(event) {
    const cell = /** @type {Element} */ (event.target).closest(".nbimg-place");
    const run = [...this.runs.values()].find((one) => one.el.contains(cell));
    const number = cell instanceof HTMLElement ? run?.tiles[Number(cell.dataset.place)]?.number : undefined;
    return typeof number === "number" ? [number] : [];
  }

  /** @param {any} job @param {boolean} [old] */
  job(job, old = false) {
    const run = this.runs.get(job.id);
    if (!run) return;
    const whole = run.tiles.length || 1;
    run.bar.value = run.tiles.reduce((made, tile) => made + (UNDER_WAY.includes(tile.state) ? (tile.share ?? 0) : 1), 0) / whole;
    run.line.textContent = job.text;
    run.done = job.done;
    run.bar.hidden = job.done;
    run.stop.hidden = job.done;
    run.el.classList.toggle("nbimg-failed-run", Boolean(job.done && job.error));
    if (job.done && job.error) run.line.textContent = `${job.text} — ${job.error}`;
    if (job.done && !old) this.acts.done(job);
  }

  /** @param {string} id */
  drop(id) {
    const run = this.runs.get(id);
    if (!run) return;
    if (!run.done) this.kernel.ask("cancel", { job: id });
    this.kernel.ask("drop", { job: id });
    for (const tile of run.tiles) if (tile.url) URL.revokeObjectURL(tile.url);
    run.el.remove();
    this.runs.delete(id);
    this.nothing.hidden = this.runs.size > 0;
  }

  get running() {
    return [...this.runs.values()].filter((run) => !run.done);
  }

  close() {
    for (const run of this.runs.values()) for (const tile of run.tiles) if (tile.url) URL.revokeObjectURL(tile.url);
  }
}

/**
 * Show how a picture stands that is not there: what it looks like so far, or what became of it.
 * @param {HTMLElement} cell @param {Tile} tile
 */
function fillUnmade(cell, tile) {
  cell.dataset.state = tile.state;
  const ended = !UNDER_WAY.includes(tile.state);
  cell.classList.toggle("nbimg-ended", ended);
  if (ended) {
    fill(cell, h("b", null, tile.word), tile.said ? h("span", { class: "nbimg-help", dir: "auto" }, tile.said) : null);
    return;
  }
  const shown = /** @type {HTMLImageElement | null} */ (tile.url ? (cell.querySelector("img") ?? h("img", { draggable: "false" })) : null);
  if (shown) {
    shown.src = tile.url ?? "";
    shown.alt = `preview: ${tile.caption}`;
  }
  const state = [tile.word, tile.said].filter(Boolean).join(" · ");
  fill(
    cell,
    shown ?? h("span", { class: "nbimg-help", dir: "auto" }, tile.caption),
    h("span", { class: "nbimg-stands" }, state),
    tile.share === null ? null : h("i", { class: "nbimg-share", style: `width:${Math.round(100 * tile.share)}%` }),
  );
}

/** @param {any} form */
function guess(form) {
  const [wide, high] = String(form.options.size ?? form.options.ar ?? "1:1").split(/[x:]/).map(Number);
  return wide / high || 1;
}

