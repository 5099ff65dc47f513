// Choose a model: type a part of its name, see what it takes and costs. Stage: inside of the panel.

import { fill, h, icon, said } from "./dom.js";
import { Kernel } from "./kernel.js";

/** @typedef {{name: string, full: string, provider: string, about: string, ready: boolean, local: boolean,
 *   makes: boolean, edits: boolean | null, price: string, priced: string}} Model */

let pickers = 0;

export class Models {
  /** @param {Kernel} kernel @param {(name: string) => void} onPick Several have commas between them. */
  constructor(kernel, onPick) {
    this.kernel = kernel;
    this.onPick = onPick;
    this.value = "";
    this.chosen = "";
    /** @type {Model[]} */
    this.all = [];
    /** @type {(Model & {search?: boolean})[]} */
    this.found = [];
    this.at = 0;
    const id = `nbimg-models-${pickers++}`;
    this.name = h("b", null);
    this.badges = h("span", { class: "nbimg-badges" });
    this.open = h("button", { type: "button", class: "nbimg-picked", "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => this.toggle() }, this.name, this.badges, icon("search"));
    this.list = h("ul", { id, class: "nbimg-list", role: "listbox", "aria-label": "Models" });
    this.box = h("input", {
      type: "text",
      role: "combobox",
      "aria-label": "Search models",
      "aria-controls": id,
      "aria-expanded": "true",
      "aria-autocomplete": "list",
      placeholder: "Search models, or provider:model",
      spellcheck: "false",
      autocomplete: "off",
      oninput: () => this.filter(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.key(event),
    });
    this.pop = h("div", { class: "nbimg-pop", role: "dialog", "aria-label": "Choose a model", hidden: true }, this.box, this.list, h("p", { class: "nbimg-help" }, "Ctrl-Enter or Ctrl-click adds one more: a column each."));
    this.el = h("div", { class: "nbimg-models" }, this.open, this.pop);
    this.outside = (/** @type {PointerEvent} */ event) => {
      if (!this.el.contains(/** @type {Node} */ (event.target))) this.shut();
    };
    document.addEventListener("pointerdown", this.outside);
  }

  async load() {
    this.all = (await this.kernel.ask("models")).value;
    this.set(this.value, this.chosen);
  }

  /**
   * @param {string} value What the form says; empty: the best one at hand.
   * @param {string} [chosen] Which one that is.
   */
  set(value, chosen = this.chosen) {
    this.value = value;
    this.chosen = chosen;
    const names = value.split(",").filter(Boolean);
    this.name.textContent = names.length > 1 ? `${names.length} models` : names[0] || (chosen ? `Best at hand: ${chosen}` : "Best at hand");
    this.open.title = names.join(", ");
    const model = this.all.find((one) => one.name === (names[0] || chosen));
    fill(this.badges, names.length < 2 && model ? badges(model, true) : null);
  }

  toggle() {
    if (this.pop.hidden) {
      this.pop.hidden = false;
      this.open.setAttribute("aria-expanded", "true");
      this.box.value = "";
      this.filter();
      this.box.focus();
    } else this.shut();
  }

  /** @param {boolean} [back] Whether the focus goes back to the button. */
  shut(back = false) {
    if (this.pop.hidden) return;
    this.pop.hidden = true;
    this.open.setAttribute("aria-expanded", "false");
    if (back) this.open.focus();
  }

  filter() {
    const words = this.box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = this.box.value.trim();
    this.found = this.all.filter((one) => words.every((word) => `${one.name} ${one.full} ${one.about}`.toLowerCase().includes(word)));
    const plain = { provider: "", ready: true, local: false, makes: true, edits: null, price: "", priced: "" };
    if (!words.length) this.found.unshift({ ...plain, name: "", full: "", about: this.chosen ? `Now ${this.chosen}.` : "The best one that can be used now." });
    if (/^[a-z]+:\S/.test(text) && !this.found.some((one) => one.full === text)) {
      this.found.push({ ...plain, name: text, full: text, about: "By its full name." });
    } else if (text.length > 2) this.found.push({ ...plain, name: text, full: "", about: "", search: true });
    this.at = 0;
    this.draw();
  }

  draw() {
    const names = this.value.split(",");
    fill(
      this.list,
      this.found.map((one, k) =>
        h(
          "li",
          {
            id: `${this.list.id}-${k}`,
            role: "option",
            "aria-selected": String(k === this.at),
            class: one.ready ? "" : "nbimg-unready",
            onclick: (/** @type {MouseEvent} */ event) => this.pick(k, event.ctrlKey || event.metaKey),
          },
          one.search
            ? h("span", null, icon("search"), ` Search the providers for “${one.name}”`)
            : [h("span", { class: "nbimg-name" }, names.includes(one.name) && one.name ? "✓ " : "", one.name || "Best at hand"), h("span", { class: "nbimg-badges" }, one.full ? badges(one) : null), h("span", { class: "nbimg-about" }, one.about)],
        ),
      ),
    );
    this.point();
  }

  point() {
    [...this.list.children].forEach((item, k) => item.setAttribute("aria-selected", String(k === this.at)));
    this.box.setAttribute("aria-activedescendant", `${this.list.id}-${this.at}`);
    this.list.children[this.at]?.scrollIntoView({ block: "nearest" });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const last = this.found.length - 1;
    if (event.key === "ArrowDown") this.at = Math.min(last, this.at + 1);
    else if (event.key === "ArrowUp") this.at = Math.max(0, this.at - 1);
    else if (event.key === "Enter") this.pick(this.at, event.ctrlKey || event.metaKey);
    else if (event.key === "Escape") this.shut(true);
    else return;
    event.preventDefault();
    if (!this.pop.hidden) this.point();
  }

  /** @param {number} k @param {boolean} more */
  async pick(k, more) {
    const one = this.found[k];
    if (!one) return;
    if (one.search) return this.searchProviders(one.name);
    const names = this.value.split(",").filter(Boolean);
    if (more && one.name) {
      const value = names.includes(one.name) ? names.filter((name) => name !== one.name) : [...names, one.name];
      this.onPick(value.join(","));
      this.draw();
    } else {
      this.onPick(one.name);
      this.shut(true);
    }
  }

  /** @param {string} text */
  async searchProviders(text) {
    fill(this.list, h("li", { role: "option", "aria-selected": "false" }, "Searching…"));
    try {
      const { value } = await this.kernel.ask("search_models", { text });
      this.found = value;
      this.at = 0;
      if (value.length) this.draw();
      else fill(this.list, h("li", { role: "option", "aria-selected": "false" }, "No provider with a key knows such a model."));
    } catch (error) {
      fill(this.list, h("li", { role: "option", "aria-selected": "false" }, said(error)));
    }
  }

  close() {
    document.removeEventListener("pointerdown", this.outside);
  }
}

/** @param {Model} model @param {boolean} [short] */
function badges(model, short = false) {
  const heard = (/** @type {string} */ words) => h("span", { class: "nbimg-heard" }, words);
  const found = [];
  if (!model.ready) found.push(h("span", { class: "nbimg-badge nbimg-nokey" }, "no key"));
  else if (model.local) found.push(h("span", { class: "nbimg-badge" }, "runs here"));
  else if (!short) found.push(h("span", { class: "nbimg-badge", title: "Its key is there" }, icon("key"), heard("its key is there")));
  if (model.edits) found.push(h("span", { class: "nbimg-badge", title: "It takes images" }, icon("reference"), heard("takes images")));
  if (model.price && !model.local) found.push(h("span", { class: "nbimg-badge", title: model.priced ? `an image, as read on ${model.priced}` : "an image" }, model.price));
  else if (model.full && !short && !model.local) found.push(h("span", { class: "nbimg-badge nbimg-nokey", title: "Its price is unknown" }, "$ ?"));
  return found;
}
