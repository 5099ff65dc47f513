// One picture over the whole page. Stage: opened from a wall. Comes in: a place on it. Goes out: what is to be
// done with the picture.

import { button, fill, h, icon, openDialog, said, shorten } from "./dom.js";
import { fillDetails } from "./details.js";
import { Full } from "./full.js";
import { Kernel } from "./kernel.js";
import { Stage } from "./stage.js";
import { Wall } from "./wall.js";

/** @typedef {{name: string, icon: string, label: string, key: string, videos?: boolean}} Deed */

export class Lightbox {
  /**
   * @param {HTMLElement} host @param {Kernel} kernel @param {Wall} wall
   * @param {Deed[]} deeds What can be done, as buttons and keys.
   * @param {(name: string, number: number) => void} act
   */
  constructor(host, kernel, wall, deeds, act) {
    this.host = host;
    this.kernel = kernel;
    this.wall = wall;
    this.deeds = deeds;
    this.act = act;
    this.full = new Full(kernel);
    this.stage = new Stage();
    this.turn = 0;
    this.open = false;
    this.title = h("h2", { class: "nbimg-title", dir: "auto" });
    this.count = h("span", { class: "nbimg-count" });
    this.scale = h("button", { type: "button", class: "nbimg-button nbimg-scale", title: "Whole picture, or pixel for pixel (z)", onclick: () => this.stage.toggle() });
    this.column = h("div", { class: "nbimg-column", tabindex: "0", role: "region", "aria-label": "Details" });
    this.problem = h("div", { class: "nbimg-problem", role: "alert" });
    /** @type {Map<string, HTMLButtonElement>} */
    this.buttons = new Map();
    this.stage.onView = () => this.say();
    this.withDetails = true;
  }

  /** @param {number} place */
  show(place) {
    if (!this.open) this.build();
    this.turnTo(place);
  }

  build() {
    this.open = true;
    const bar = this.deeds.map((deed) => {
      const one = button(deed.icon, deed.label, () => this.do(deed.name), { key: deed.key });
      this.buttons.set(deed.name, one);
      return one;
    });
    const toggle = button("info", "Details", () => this.details(!this.withDetails), { key: "i" });
    this.buttons.set("details", toggle);
    const dialog = (this.dialog = openDialog(this.host, "Picture", "nbimg-lightbox"));
    dialog.append(
      h(
        "header",
        null,
        button("close", "Close", () => dialog.close(), { key: "Esc" }),
        this.title,
        this.count,
        this.scale,
        h("div", { class: "nbimg-bar", role: "toolbar", "aria-label": "Picture" }, bar, toggle),
      ),
      h(
        "div",
        { class: "nbimg-room" },
        this.stage.el,
        this.problem,
        button("left", "Previous", () => this.turnBy(-1), { key: "←", class: "nbimg-previous" }),
        button("right", "Next", () => this.turnBy(1), { key: "→", class: "nbimg-next" }),
        this.column,
      ),
    );
    dialog.addEventListener("keydown", (event) => this.key(event));
    dialog.addEventListener("close", () => {
      this.open = false;
      this.full.close();
      this.wall.place(this.wall.at);
    });
    this.details(this.withDetails);
  }

  /** @param {boolean} on */
  details(on) {
    this.withDetails = on;
    this.column.hidden = !on;
    this.dialog?.classList.toggle("nbimg-wide", !on);
    this.buttons.get("details")?.setAttribute("aria-pressed", String(on));
    if (on && this.open) this.tell(this.wall.number(this.wall.at), this.turn);
  }

  /** @param {number} by */
  turnBy(by) {
    const place = this.wall.at + by;
    if (place >= 0 && place < this.wall.length) this.turnTo(place);
  }

  /** @param {number} place */
  async turnTo(place) {
    const turn = ++this.turn;
    this.wall.chosen.clear();
    this.wall.place(place);
    const number = this.wall.number(place);
    this.problem.textContent = "";
    const info = await this.wall.info(place);
    if (turn !== this.turn || !info) return;
    this.number = number;
    this.video = info.kind === "video";
    this.stage.set({ zoom: 1, u: 0.5, v: 0.5 });
    this.title.textContent = shorten(info.prompt, 160) || "(no prompt)";
    this.count.textContent = `${(place + 1).toLocaleString("en")} of ${this.wall.length.toLocaleString("en")}`;
    this.starred();
    this.say();
    if (this.withDetails) this.tell(number, turn);
    if (!info.image) {
      this.stage.show(h("div", { class: "nbimg-reason" }, h("b", null, `${info.sign} ${info.word}`)), 320, 200);
      return;
    }
    try {
      const alt = info.prompt || "image";
      await this.full.into(number, info.url, alt, (node) => {
        if (turn !== this.turn) return;
        this.stage.show(node, info.width, info.height);
        this.say();
      });
    } catch (error) {
      if (turn === this.turn) this.problem.textContent = said(error);
    }
    this.ahead(place, turn);
  }

  /** Fetch the next picture before it is asked for. @param {number} place @param {number} turn */
  async ahead(place, turn) {
    const next = await this.wall.info(place + 1);
    if (turn === this.turn && next?.image) this.full.get(next.number).catch(() => {});
  }

  /** @param {number} number @param {number} turn */
  async tell(number, turn) {
    try {
      const { value, buffers } = await this.kernel.ask("details", { number });
      if (turn !== this.turn) return;
      fillDetails(this.column, value, buffers);
      this.column.scrollTop = 0;
      const more = this.buttons.get("more");
      if (more) more.title = `More like this${value.price ? ` · ${value.price}` : ""} (m)`;
    } catch (error) {
      if (turn === this.turn) fill(this.column, h("p", null, said(error)));
    }
  }

  starred() {
    const star = this.buttons.get("star");
    if (!star || this.number === undefined) return;
    const on = this.wall.isStarred(this.number);
    star.setAttribute("aria-pressed", String(on));
    fill(star, icon("star", on));
  }

  say() {
    this.scale.textContent = `${Math.round(this.stage.scale() * 100)} %`;
    this.scale.setAttribute("aria-label", `Zoom ${this.scale.textContent}`);
  }

  /** @param {string} name */
  do(name) {
    if (this.number === undefined) return;
    this.act(name, this.number);
    this.starred();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.target instanceof HTMLVideoElement || event.ctrlKey || event.metaKey || event.altKey) return;
    const deed = this.deeds.find((one) => one.key === event.key || (one.key === "Del" && event.key === "Delete"));
    const inColumn = this.column.contains(/** @type {Node} */ (event.target));
    const onButton = event.target instanceof HTMLButtonElement;
    if (this.stage.key(event)) event.preventDefault();
    else if (event.key === "ArrowLeft" && !inColumn) this.turnBy(-1);
    else if (event.key === "ArrowRight" && !inColumn) this.turnBy(1);
    else if (event.key === "z") this.stage.toggle();
    else if (event.key === "i") this.details(!this.withDetails);
    else if (event.key === " " && !onButton) this.dialog?.close();
    else if (deed) this.do(deed.name);
    else return;
    event.preventDefault();
  }

  close() {
    this.dialog?.close();
    this.stage.close();
    this.full.close();
  }
}

