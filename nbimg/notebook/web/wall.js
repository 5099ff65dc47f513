// A wall of pictures, of which only those in the window exist. Stage: seen in gallery and panel. Comes in: how
// many there are, their shapes; a kernel that knows the rest. Goes out: what is focused, chosen, opened.

import { h, icon, fill, shorten } from "./dom.js";
import { justify, rowAt } from "./justify.js";
import { dragsOut } from "./drag.js";
import { Kernel, blobUrl } from "./kernel.js";

/** @typedef {{number: number, prompt: string, model: string, status: string, sign: string, word: string,
 *   at: number, width: number, height: number, seed: number | null, kind: string, image: boolean,
 *   star: boolean, url?: string}} Info */

const GAP = 6;
const AHEAD = 1.2; // windows that are kept ready on each side
const ASKED = 30; // tiles a question
const UNDER_WAY = 2; // questions at a time
const KEPT = 1500; // pictures that are remembered
const [STAR, VIDEO, NONE] = [8, 16, 32];

let walls = 0;

export class Wall {
  /**
   * @param {Kernel} kernel
   * @param {{label: string, rowHeight: number, many?: boolean, empty?: string}} how
   */
  constructor(kernel, how) {
    this.kernel = kernel;
    this.how = how;
    this.id = `nbimg-wall-${walls++}`;
    this.rowHeight = how.rowHeight;
    this.numbers = /** @type {Uint32Array} */ (new Uint32Array());
    this.ratios = /** @type {Uint16Array} */ (new Uint16Array());
    this.flags = /** @type {Uint8Array} */ (new Uint8Array());
    this.layout = justify(this.ratios, 1, 1, GAP);
    /** @type {Map<number, number>} Number of an image → its place. */
    this.places = new Map();
    /** @type {Map<number, Info>} */
    this.known = new Map();
    /** @type {Map<number, HTMLElement>} Place → its tile. */
    this.shown = new Map();
    /** @type {HTMLElement[]} */
    this.spare = [];
    /** @type {Set<number>} Numbers. */
    this.chosen = new Set();
    /** @type {Set<number>} Numbers that are being asked for. */
    this.asked = new Set();
    this.underWay = 0;
    this.at = 0;
    this.anchor = 0;
    this.frame = 0;
    /** @type {(place: number) => void} */
    this.onOpen = () => {};
    /** @type {(place: number) => void} */
    this.onStar = () => {};
    this.onChange = () => {};
    /** @type {(event: KeyboardEvent) => boolean} Whether it was for whoever has the wall. */
    this.onKey = () => false;
    this.inside = h("div", { class: "nbimg-inside", role: "presentation" });
    this.nothing = h("div", { class: "nbimg-nothing", hidden: true });
    this.el = h(
      "div",
      {
        class: "nbimg-wall",
        role: "listbox",
        tabindex: "0",
        "aria-label": how.label,
        "aria-multiselectable": how.many ? "true" : null,
        onscroll: () => this.later(),
        onkeydown: (/** @type {KeyboardEvent} */ event) => this.key(event),
        onclick: (/** @type {MouseEvent} */ event) => this.click(event),
        ondblclick: (/** @type {MouseEvent} */ event) => this.doubleClick(event),
        onfocus: () => this.mark(),
      },
      this.inside,
    );
    dragsOut(this.el, (event) => this.dragged(event), async (numbers) => (await kernel.ask("refer_to", { numbers })).value);
    this.sized = new ResizeObserver(() => this.relayout());
    this.sized.observe(this.el);
  }

  get length() {
    return this.numbers.length;
  }

  /** @param {number} place */
  number(place) {
    return this.numbers[place];
  }

  /** The numbers that something is done with: what is chosen, else what is in focus. */
  meant() {
    if (this.chosen.size) return [...this.chosen];
    return this.length ? [this.numbers[this.at]] : [];
  }

  /**
   * Show other pictures; the focus stays on its picture where that is still there.
   * @param {Uint32Array} numbers @param {Uint16Array} ratios @param {Uint8Array} flags
   * @param {boolean} [stay] Whether what is looked at stays where it is.
   */
  set(numbers, ratios, flags, stay = false) {
    const focused = this.numbers[this.at];
    const top = this.el.scrollTop;
    const seen = this.numbers[this.layout.first[rowAt(this.layout, top)] ?? 0];
    const into = top - (this.layout.y[this.layout.row[this.places.get(seen) ?? 0]] ?? 0);
    this.numbers = numbers;
    this.ratios = ratios;
    this.flags = flags;
    this.places = new Map();
    numbers.forEach((number, place) => this.places.set(number, place));
    for (const number of this.chosen) if (!this.places.has(number)) this.chosen.delete(number);
    this.at = this.places.get(focused) ?? Math.min(this.at, Math.max(0, numbers.length - 1));
    if (!stay) this.at = this.places.get(focused) ?? 0;
    this.nothing.hidden = numbers.length > 0;
    for (const place of [...this.shown.keys()]) this.drop(place);
    this.relayout();
    const place = this.places.get(seen);
    if (stay && place !== undefined && top > 0) this.el.scrollTop = this.layout.y[this.layout.row[place]] + into;
    else if (!stay) this.el.scrollTop = 0;
    this.paint();
    this.mark();
    this.onChange();
  }

  /** @param {number} height */
  setRowHeight(height) {
    this.rowHeight = height;
    this.relayout();
    this.reveal();
  }

  relayout() {
    const space = this.el.clientWidth - 2 * GAP;
    if (space < 40) return;
    const seen = this.layout.first[rowAt(this.layout, this.el.scrollTop)] ?? 0;
    const moved = this.el.scrollTop > 0 && this.layout.width.length === this.ratios.length;
    this.layout = justify(this.ratios, space, this.rowHeight, GAP);
    const total = this.layout.y[this.layout.y.length - 1];
    this.inside.style.height = `${total}px`;
    if (moved) this.el.scrollTop = this.layout.y[this.layout.row[seen] ?? 0];
    for (const place of [...this.shown.keys()]) this.drop(place);
    this.paint();
  }

  later() {
    if (!this.frame) this.frame = requestAnimationFrame(() => ((this.frame = 0), this.paint()));
  }

  /** Make the tiles of the window, give back the others. */
  paint() {
    const { layout, el } = this;
    const high = el.clientHeight;
    const ahead = high * AHEAD;
    const from = rowAt(layout, el.scrollTop - ahead);
    const to = rowAt(layout, el.scrollTop + high + ahead);
    const first = layout.first[from] ?? 0;
    const end = layout.height.length ? layout.first[to + 1] : 0;
    for (const place of this.shown.keys()) if (place < first || place >= end) this.drop(place);
    for (let place = first; place < end; place++) if (!this.shown.has(place)) this.make(place);
    this.askFor(first, end);
  }

  /** @param {number} place */
  make(place) {
    const tile = this.spare.pop() ?? this.blank();
    const { layout } = this;
    const row = layout.row[place];
    tile.style.transform = `translate(${layout.x[place]}px, ${layout.y[row]}px)`;
    tile.style.width = `${layout.width[place]}px`;
    tile.style.height = `${layout.height[row]}px`;
    tile.id = `${this.id}-${place}`;
    tile.dataset.place = String(place);
    tile.setAttribute("aria-setsize", String(this.length));
    tile.setAttribute("aria-posinset", String(place + 1));
    this.shown.set(place, tile);
    this.dress(place, tile);
    if (!tile.parentNode) this.inside.append(tile);
    tile.hidden = false;
  }

  blank() {
    return h(
      "div",
      { class: "nbimg-photo", role: "option", draggable: "true" },
      h("img", { alt: "", draggable: "false", decoding: "async" }),
      h("div", { class: "nbimg-reason", "aria-hidden": "true" }),
      h("span", { class: "nbimg-kind", "aria-hidden": "true" }, "▶"),
      h("span", { class: "nbimg-star", "aria-hidden": "true" }, icon("star")),
      h("span", { class: "nbimg-tick", "aria-hidden": "true" }, "✓"),
    );
  }

  /**
   * Let a tile show what is known.
   * @param {number} place @param {HTMLElement} tile
   */
  dress(place, tile) {
    const number = this.numbers[place];
    const flags = this.flags[place];
    const info = this.known.get(number);
    const picture = /** @type {HTMLImageElement} */ (tile.firstChild);
    const why = /** @type {HTMLElement} */ (picture.nextSibling);
    const starred = (flags & STAR) !== 0;
    tile.classList.toggle("nbimg-starred", starred);
    tile.classList.toggle("nbimg-video", (flags & VIDEO) !== 0);
    tile.classList.toggle("nbimg-chosen", this.chosen.has(number));
    tile.classList.toggle("nbimg-at", place === this.at);
    tile.setAttribute("aria-selected", String(this.chosen.has(number) || (!this.how.many && place === this.at)));
    if (!info) {
      tile.classList.add("nbimg-waits");
      tile.setAttribute("aria-label", `image ${place + 1}`);
      picture.hidden = true;
      why.hidden = true;
      return;
    }
    tile.classList.remove("nbimg-waits");
    picture.hidden = !info.url;
    if (info.url && picture.getAttribute("src") !== info.url) picture.src = info.url;
    why.hidden = Boolean(info.url);
    if (!info.url) fill(why, h("b", null, info.image ? "no picture" : `${info.sign} ${info.word}`), h("span", null, shorten(info.prompt, 80)));
    const words = [shorten(info.prompt, 140) || "no prompt", info.model];
    if (flags & NONE) words.push(info.word);
    if (info.kind === "video") words.push("video");
    if (starred) words.push("starred");
    tile.setAttribute("aria-label", words.join(", "));
  }

  /** @param {number} place */
  drop(place) {
    const tile = this.shown.get(place);
    if (!tile) return;
    this.shown.delete(place);
    tile.hidden = true;
    tile.removeAttribute("id");
    tile.className = "nbimg-photo";
    this.spare.push(tile);
  }

  /** Dress all tiles again. */
  redress() {
    for (const [place, tile] of this.shown) this.dress(place, tile);
  }

  /** @param {number} first @param {number} end */
  askFor(first, end) {
    while (this.underWay < UNDER_WAY) {
      const middle = this.el.scrollTop + this.el.clientHeight / 2;
      const centre = this.layout.first[rowAt(this.layout, middle)] ?? 0;
      const missing = [];
      for (let place = first; place < end; place++) {
        const number = this.numbers[place];
        if (!this.known.has(number) && !this.asked.has(number)) missing.push(place);
      }
      if (!missing.length) return;
      missing.sort((a, b) => Math.abs(a - centre) - Math.abs(b - centre));
      this.bring(missing.slice(0, ASKED).map((place) => this.numbers[place]));
    }
  }

  /** @param {number[]} numbers */
  async bring(numbers) {
    this.underWay++;
    for (const number of numbers) this.asked.add(number);
    try {
      const { value, buffers } = await this.kernel.ask("tiles", { numbers });
      value.forEach((/** @type {Info} */ info, /** @type {number} */ k) => this.learn(info, buffers[k]));
    } catch {
      // asked again when it is seen again
    } finally {
      this.underWay--;
      for (const number of numbers) this.asked.delete(number);
      this.later();
    }
  }

  /** @param {Info} info @param {DataView | undefined} data */
  learn(info, data) {
    if (data?.byteLength) info.url = blobUrl(data, "image/webp");
    this.known.set(info.number, info);
    const place = this.places.get(info.number);
    const tile = place === undefined ? undefined : this.shown.get(place);
    if (tile && place !== undefined) this.dress(place, tile);
    if (this.known.size > KEPT) this.forget();
  }

  /** Forget the pictures that were seen longest ago and are not seen now. */
  forget() {
    const seen = new Set([...this.shown.keys()].map((place) => this.numbers[place]));
    for (const [number, info] of this.known) {
      if (this.known.size <= KEPT * 0.8) return;
      if (seen.has(number)) continue;
      if (info.url) URL.revokeObjectURL(info.url);
      this.known.delete(number);
    }
  }

  /**
   * What is known of a picture, asked for where nothing is.
   * @param {number} place
   * @returns {Promise<Info | undefined>}
   */
  async info(place) {
    const number = this.numbers[place];
    if (number !== undefined && !this.known.has(number)) {
      const { value, buffers } = await this.kernel.ask("tiles", { numbers: [number] });
      this.learn(value[0], buffers[0]);
    }
    return this.known.get(number);
  }

  /** @param {number[]} numbers @param {boolean} on */
  star(numbers, on) {
    for (const number of numbers) {
      const place = this.places.get(number);
      if (place === undefined) continue;
      this.flags[place] = on ? this.flags[place] | STAR : this.flags[place] & ~STAR;
      const info = this.known.get(number);
      if (info) info.star = on;
    }
    this.redress();
  }

  /** @param {number} number */
  isStarred(number) {
    const place = this.places.get(number);
    return place !== undefined && (this.flags[place] & STAR) !== 0;
  }

  // ------------------------------------------------------------------ hands

  /** @param {number} place */
  place(place) {
    this.at = Math.max(0, Math.min(this.length - 1, place));
    this.reveal();
    this.mark();
    this.redress();
    this.onChange();
  }

  mark() {
    if (this.shown.has(this.at)) this.el.setAttribute("aria-activedescendant", `${this.id}-${this.at}`);
    else this.el.removeAttribute("aria-activedescendant");
  }

  reveal() {
    const { layout, el } = this;
    const row = layout.row[this.at];
    if (row === undefined) return;
    const top = layout.y[row];
    const bottom = top + layout.height[row];
    if (top < el.scrollTop) el.scrollTop = Math.max(0, top - GAP);
    else if (bottom > el.scrollTop + el.clientHeight) el.scrollTop = bottom - el.clientHeight + 2 * GAP;
    this.paint();
  }

  /** @param {Event} event */
  placeOf(event) {
    const tile = /** @type {Element} */ (event.target).closest(".nbimg-photo");
    return tile instanceof HTMLElement ? Number(tile.dataset.place) : -1;
  }

  /** @param {MouseEvent} event */
  click(event) {
    const place = this.placeOf(event);
    if (place < 0) return;
    if (/** @type {Element} */ (event.target).closest(".nbimg-star")) return this.onStar(place);
    const tick = /** @type {Element} */ (event.target).closest(".nbimg-tick");
    if (this.how.many && event.shiftKey) this.choose(this.anchor, place);
    else if (this.how.many && (event.ctrlKey || event.metaKey || tick)) this.toggle(place);
    else this.chosen.clear();
    if (!event.shiftKey) this.anchor = place;
    this.place(place);
  }

  /** What is dragged: the picture under the pointer, with the others that are chosen if it is. @param {Event} event */
  dragged(event) {
    const place = this.placeOf(event);
    const number = place < 0 ? undefined : this.numbers[place];
    if (number === undefined || this.flags[place] & NONE) return [];
    return this.chosen.has(number) ? [...this.chosen] : [number];
  }

  /** @param {MouseEvent} event */
  doubleClick(event) {
    const target = /** @type {Element} */ (event.target);
    const place = this.placeOf(event);
    if (place >= 0 && !target.closest(".nbimg-star, .nbimg-tick")) this.onOpen(place);
  }

  /** @param {number} place */
  toggle(place) {
    const number = this.numbers[place];
    if (!this.chosen.delete(number)) this.chosen.add(number);
  }

  /** @param {number} from @param {number} to */
  choose(from, to) {
    this.chosen.clear();
    for (let place = Math.min(from, to); place <= Math.max(from, to); place++) this.chosen.add(this.numbers[place]);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const to = this.goal(event);
    if (to === null) {
      if (this.onKey(event)) event.preventDefault();
      return;
    }
    event.preventDefault();
    if (this.how.many && event.shiftKey) this.choose(this.anchor, to);
    else this.anchor = to;
    this.place(to);
  }

  /**
   * Where a key leads; null: nowhere.
   * @param {KeyboardEvent} event
   * @returns {number | null}
   */
  goal(event) {
    if (!this.length || event.altKey || event.ctrlKey || event.metaKey) return null;
    const last = this.length - 1;
    const rows = Math.max(1, Math.floor(this.el.clientHeight / (this.rowHeight + GAP)));
    switch (event.key) {
      case "ArrowLeft":
        return Math.max(0, this.at - 1);
      case "ArrowRight":
        return Math.min(last, this.at + 1);
      case "ArrowUp":
        return this.beside(-1);
      case "ArrowDown":
        return this.beside(1);
      case "PageUp":
        return this.beside(-rows);
      case "PageDown":
        return this.beside(rows);
      case "Home":
        return 0;
      case "End":
        return last;
      default:
        return null;
    }
  }

  /**
   * The picture above or below.
   * @param {number} rows
   */
  beside(rows) {
    const { layout } = this;
    const row = Math.max(0, Math.min(layout.height.length - 1, layout.row[this.at] + rows));
    if (row === layout.row[this.at]) return this.at;
    const middle = layout.x[this.at] + layout.width[this.at] / 2;
    let best = layout.first[row];
    for (let place = best; place < layout.first[row + 1]; place++) {
      const off = Math.abs(layout.x[place] + layout.width[place] / 2 - middle);
      if (off < Math.abs(layout.x[best] + layout.width[best] / 2 - middle)) best = place;
    }
    return best;
  }

  close() {
    this.sized.disconnect();
    cancelAnimationFrame(this.frame);
    for (const info of this.known.values()) if (info.url) URL.revokeObjectURL(info.url);
    this.known.clear();
  }
}

/**
 * The arrays of a search.
 * @param {DataView[]} buffers
 * @returns {[Uint32Array, Uint16Array, Uint8Array]}
 */
export function arraysOf(buffers) {
  /** @param {DataView} view */
  const bytes = (view) =>
    /** @type {ArrayBuffer} */ (view.buffer).slice(view.byteOffset, view.byteOffset + view.byteLength);
  return [new Uint32Array(bytes(buffers[0])), new Uint16Array(bytes(buffers[1])), new Uint8Array(bytes(buffers[2]))];
}
