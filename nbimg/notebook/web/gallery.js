// The gallery. Stage: the whole of it on a page. Comes in: the widget's state (`query`, `view`) and the kernel's
// answers. Goes out: what was typed and pressed.

import { Toasts, button, counted, fill, h, handOver, icon, keepKeys, said, shorten } from "./dom.js";
import { Kernel } from "./kernel.js";
import { Lightbox } from "./lightbox.js";
import { Wall, arraysOf } from "./wall.js";
import { compare } from "./compare.js";
import { openMask } from "./mask.js";
import { dates, filters, shapes, withField } from "./search.js";

const TYPING_MS = 180;
const LOOK_MS = 2000;

/** @type {import("./lightbox.js").Deed[]} */
const DEEDS = [
  { name: "star", icon: "star", label: "Star", key: "s" },
  { name: "reference", icon: "reference", label: "Use as reference", key: "r" },
  { name: "more", icon: "more", label: "More like this", key: "m" },
  { name: "edit", icon: "edit", label: "Edit", key: "e" },
  { name: "cell", icon: "copy", label: "Copy as cell", key: "c" },
  { name: "zip", icon: "download", label: "Download", key: "d" },
  { name: "trash", icon: "trash", label: "Move to the trash", key: "Del" },
];

class Gallery {
  /** @param {import("./kernel.js").Model} model @param {HTMLElement} el */
  constructor(model, el) {
    this.model = model;
    this.kernel = new Kernel(model);
    this.toasts = new Toasts();
    this.version = -1;
    this.asks = 0;
    /** @type {string[]} Ids of jobs that were begun here. */
    this.jobs = [];
    const view = model.get("view") ?? {};
    this.wall = new Wall(this.kernel, { label: "Images", rowHeight: view.rowHeight ?? 180, many: true });
    this.lightbox = new Lightbox(el, this.kernel, this.wall, DEEDS, (name, number) => this.act(name, [number]));
    this.el = h("div", { class: "nbimg nbimg-gallery" });
    this.box = h("input", {
      type: "search",
      class: "nbimg-search",
      placeholder: "Search prompts",
      "aria-label": "Search prompts, or model: date: size: status: is: seed:",
      spellcheck: "false",
      oninput: () => this.typed(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        if (event.key === "ArrowDown" || event.key === "Enter") this.wall.el.focus();
      },
    });
    this.box.value = this.model.get("query") ?? "";
    this.selects = {
      model: this.select("model", "Model"),
      date: this.select("date", "Date"),
      size: this.select("size", "Size"),
      status: this.select("status", "Status"),
    };
    this.starred = button("star", "Starred", () => this.flip("is", "starred"), { words: true });
    this.trashed = button("trash", "Trash", () => this.flip("is", "trashed"), { words: true });
    this.count = h("span", { class: "nbimg-count", role: "status" });
    this.waiting = h("span", { class: "nbimg-waiting", role: "status", hidden: true }, "the kernel is busy…");
    this.large = h("input", {
      type: "range",
      min: "90",
      max: "360",
      step: "10",
      value: String(this.wall.rowHeight),
      class: "nbimg-large",
      "aria-label": "Size of the pictures",
      title: "Size of the pictures",
      oninput: () => this.wall.setRowHeight(Number(this.large.value)),
      onchange: () => this.keepView(),
    });
    this.deeds = DEEDS.map((deed) => button(deed.icon, deed.label, () => this.act(deed.name, this.wall.meant()), { key: deed.key, words: true }));
    this.comparing = button("compare", "Compare", () => void this.compare(), { key: "x", words: true });
    this.restoring = button("undo", "Restore", () => this.restore(this.wall.meant()), { words: true, class: "nbimg-primary" });
    this.meant = h("span", { class: "nbimg-meant", role: "status" });
    this.bar = h(
      "div",
      { class: "nbimg-bar nbimg-deeds", role: "toolbar", "aria-label": "Chosen images" },
      this.meant,
      this.deeds[0],
      this.comparing,
      ...this.deeds.slice(1),
      this.restoring,
    );
    this.empty = h("div", { class: "nbimg-empty", hidden: true });
    fill(
      this.el,
      h(
        "div",
        { class: "nbimg-tools", role: "search" },
        h("label", { class: "nbimg-find" }, icon("search"), this.box),
        ...Object.values(this.selects),
        this.starred,
        this.model.get("whole") ? this.trashed : null,
        h("span", { class: "nbimg-space" }),
        this.waiting,
        this.count,
        this.large,
      ),
      h("div", { class: "nbimg-frame" }, this.wall.el, this.empty),
      this.bar,
      this.toasts.el,
    );
    el.append(this.el);
    keepKeys(this.el);
    this.wall.onOpen = (place) => this.lightbox.show(place);
    this.wall.onStar = (place) => this.star([this.wall.number(place)]);
    this.wall.onChange = () => this.changed();
    this.wall.onKey = (event) => this.key(event);
    this.kernel.onBusy = (busy) => (this.waiting.hidden = !busy);
    this.kernel.on("job", (job) => this.job(job));
    this.queried = () => {
      if (model.get("query") !== this.box.value) {
        this.box.value = model.get("query");
        this.search();
      }
    };
    model.on("change:query", this.queried);
    this.timer = setInterval(() => this.look(), LOOK_MS);
    this.search();
  }

  /** @param {string} field @param {string} label */
  select(field, label) {
    return h(
      "select",
      { class: "nbimg-select", "aria-label": label, onchange: (/** @type {Event} */ event) => this.field(field, /** @type {HTMLSelectElement} */ (event.target).value) },
      h("option", { value: "" }, label),
    );
  }

  // ------------------------------------------------------------------ the search

  typed() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.search(), TYPING_MS);
  }

  /** @param {string} name @param {string} value */
  field(name, value) {
    this.box.value = withField(this.box.value, name, value);
    this.search();
  }

  /** @param {string} name @param {string} value */
  flip(name, value) {
    const on = filters(this.box.value)[`${name}:${value}`];
    this.box.value = withField(this.box.value, name, on ? "" : value, value);
    this.search();
  }

  /** @param {boolean} [stay] Whether what is looked at stays where it is. */
  async search(stay = false) {
    const turn = ++this.asks;
    const text = this.box.value;
    if (this.model.get("query") !== text) this.kernel.keep("query", text);
    try {
      const { value, buffers } = await this.kernel.ask("query", { text });
      if (turn !== this.asks) return;
      this.version = value.version;
      this.about = value;
      const [numbers, ratios, flags] = arraysOf(buffers);
      this.wall.set(numbers, ratios, flags, stay);
      this.say(value, text);
    } catch (error) {
      this.toasts.show(said(error), { bad: true });
    }
  }

  /** @param {any} about @param {string} text */
  say(about, text) {
    const on = filters(text);
    this.count.textContent = about.total === about.all ? counted(about.total, "image") : `${about.total.toLocaleString("en")} of ${counted(about.all, "image")}`;
    options(this.selects.model, "Model", about.models.map((/** @type {[string, number]} */ [name, many]) => [name, `${name} (${many})`]), on.model);
    options(this.selects.date, "Date", dates(), on.date);
    options(this.selects.size, "Size", [...shapes(), ...about.sizes.map((/** @type {[string, number]} */ [size, many]) => [size, `${size.replace("x", " × ")} (${many})`])], on.size);
    options(this.selects.status, "Status", about.statuses.map((/** @type {[string, number]} */ [name, many]) => [name, `${name} (${many})`]), on.status);
    this.starred.setAttribute("aria-pressed", String(Boolean(on["is:starred"])));
    this.trashed.setAttribute("aria-pressed", String(Boolean(on["is:trashed"])));
    this.inTrash = Boolean(on["is:trashed"]);
    this.empty.hidden = about.total > 0;
    if (!about.total) {
      const words = about.all || text ? "Nothing here matches." : "Nothing has been made in this folder yet.";
      const clear = button("", "Show everything", () => ((this.box.value = ""), this.search()), { words: true });
      fill(this.empty, h("p", null, words), text ? clear : h("p", null, "%%imggen makes images, and they come here."));
    }
    this.changed();
  }

  async look() {
    if (document.hidden || this.looking || !this.el.isConnected || !this.el.offsetParent) return;
    this.looking = true;
    try {
      const { value } = await this.kernel.ask("look");
      if (value !== this.version) await this.search(true);
    } catch {
      // it is looked again
    } finally {
      this.looking = false;
    }
  }

  changed() {
    const many = this.wall.chosen.size;
    this.meant.textContent = many ? `${many.toLocaleString("en")} selected` : this.wall.length ? `${(this.wall.at + 1).toLocaleString("en")} / ${this.wall.length.toLocaleString("en")}` : "";
    const none = !this.wall.length;
    for (const one of this.bar.querySelectorAll("button")) one.disabled = none;
    const [, reference, more, edit] = this.deeds;
    more.disabled = edit.disabled = none || many > 1;
    reference.disabled = none;
    this.comparing.disabled = many < 2;
    this.restoring.hidden = !this.inTrash;
    this.deeds[6].hidden = Boolean(this.inTrash);
  }

  keepView() {
    this.kernel.keep("view", { ...(this.model.get("view") ?? {}), rowHeight: this.wall.rowHeight });
  }

  // ------------------------------------------------------------------ hands

  /** @param {KeyboardEvent} event */
  key(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "a") {
      this.wall.choose(0, this.wall.length - 1);
      this.wall.place(this.wall.at);
      return true;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const deed = DEEDS.find((one) => one.key === event.key || (one.key === "Del" && ["Delete", "Backspace"].includes(event.key)));
    if (event.key === " " || event.key === "Enter") this.lightbox.show(this.wall.at);
    else if (event.key === "x") this.mark();
    else if (event.key === "/") this.box.focus();
    else if (event.key === "z") this.undo?.();
    else if (event.key === "Escape") this.escape();
    else if (deed && this.wall.length) this.act(deed.name, this.wall.meant());
    else return false;
    return true;
  }

  /** Take a picture into the comparison; with two or more, compare them. */
  mark() {
    const number = this.wall.number(this.wall.at);
    if (this.wall.chosen.has(number) && this.wall.chosen.size > 1) return void this.compare();
    this.wall.chosen.add(number);
    this.wall.place(this.wall.at);
    if (this.wall.chosen.size === 1) this.toasts.show("Now x on another image compares them.", { seconds: 4 });
    else void this.compare();
  }

  escape() {
    this.wall.chosen.clear();
    this.wall.place(this.wall.at);
  }

  /** @param {string} name @param {number[]} numbers */
  async act(name, numbers) {
    if (!numbers.length) return;
    try {
      if (name === "star") this.star(numbers);
      else if (name === "trash") await this.trash(numbers);
      else if (name === "reference") await this.reference(numbers);
      else if (name === "more") await this.more(numbers[0]);
      else if (name === "edit") await this.edit(numbers[0]);
      else if (name === "cell") await this.cell(numbers);
      else if (name === "zip") await this.zip(numbers);
    } catch (error) {
      this.toasts.show(said(error), { bad: true });
    }
  }

  /** @param {number[]} numbers */
  star(numbers) {
    const on = !numbers.every((number) => this.wall.isStarred(number));
    this.wall.star(numbers, on);
    this.kernel.ask("star", { numbers, on }).catch((error) => {
      this.wall.star(numbers, !on);
      this.toasts.show(said(error), { bad: true });
    });
  }

  /** @param {number[]} numbers */
  async trash(numbers) {
    if (this.inTrash) return;
    if (this.lightbox.open && this.wall.length === 1) this.lightbox.dialog?.close();
    const { value } = await this.kernel.ask("trash", { numbers });
    this.undo = () => {
      this.undo = undefined;
      gone();
      this.restore(numbers);
    };
    const gone = this.toasts.show(`${counted(value, "image")} moved to the trash.`, { action: "Undo (z)", press: () => this.undo?.(), seconds: 12 });
    this.wall.chosen.clear();
    await this.search(true);
    if (this.lightbox.open) this.lightbox.turnTo(Math.min(this.wall.at, this.wall.length - 1));
  }

  /** @param {number[]} numbers */
  async restore(numbers) {
    try {
      await this.kernel.ask("restore", { numbers });
      this.toasts.show(`${counted(numbers.length, "image")} put back.`, { seconds: 3 });
      this.wall.chosen.clear();
      await this.search(true);
    } catch (error) {
      this.toasts.show(said(error), { bad: true });
    }
  }

  /** @param {number[]} numbers */
  async reference(numbers) {
    const { value } = await this.kernel.ask("reference", { numbers });
    if (!value) this.toasts.show(`${counted(numbers.length, "image")} added to the panel.`);
    else await handOver(this.el, this.toasts, value, "No panel is open: a cell that refers to it is on the clipboard. %imgpanel opens one.");
  }

  /** @param {number} number */
  async more(number) {
    this.jobs.push((await this.kernel.ask("more", { number })).value);
  }

  /** @param {number[]} numbers */
  async cell(numbers) {
    const cells = await Promise.all(numbers.slice(0, 50).map((number) => this.kernel.ask("cell", { number })));
    const text = cells.map(({ value }) => value).join("\n\n");
    await handOver(this.el, this.toasts, text);
  }

  /** @param {number[]} numbers */
  async zip(numbers) {
    const wait = this.toasts.show(`Packing ${counted(numbers.length, "image")}…`, { seconds: 600 });
    try {
      const { value, buffers } = await this.kernel.ask("zip", { numbers });
      if (!buffers.length) return void this.toasts.show(`It is large, and stays in ${value.name}, beside the notebook.`, { seconds: 20 });
      const url = URL.createObjectURL(new Blob([/** @type {any} */ (buffers[0])], { type: "application/zip" }));
      h("a", { href: url, download: value.name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } finally {
      wait();
    }
  }

  /** @param {number} number */
  async edit(number) {
    const place = this.wall.places.get(number);
    const info = place === undefined ? undefined : await this.wall.info(place);
    if (!info?.image || info.kind === "video") throw new Error("Only a picture can be edited.");
    /** @param {import("./mask.js").Edit} edit @param {string} what */
    const ask = (edit, what) => this.kernel.ask(what, { number, prompt: edit.prompt, model: edit.model }, edit.mask ? [edit.mask] : []);
    openMask(
      this.el,
      this.kernel,
      info,
      async (edit) => {
        this.jobs.push((await ask(edit, "edit")).value);
        this.lightbox.dialog?.close();
      },
      async (edit) => {
        await handOver(this.el, this.toasts, (await ask(edit, "masked_cell")).value);
      },
    );
  }

  async compare() {
    const numbers = [...this.wall.chosen].slice(0, 4);
    const infos = await Promise.all(numbers.map((number) => this.wall.info(this.wall.places.get(number) ?? 0)));
    const there = /** @type {import("./wall.js").Info[]} */ (infos.filter((info) => info?.image));
    if (there.length > 1) compare(this.el, this.kernel, there.map((info) => ({ ...info })), (number) => this.star([number]));
  }

  /** @param {any} job */
  job(job) {
    if (!job.done) {
      this.running?.();
      const about = shorten(job.about, 40);
      this.running = this.toasts.show(`${about} · ${job.text}`, { action: "Stop", press: () => this.kernel.ask("cancel", { job: job.id }), seconds: 600 });
      return;
    }
    this.running?.();
    this.running = undefined;
    if (job.error) this.toasts.show(job.error, { bad: true });
    else if (job.made) this.toasts.show(`${counted(job.made, "image")} made.`, { seconds: 4 });
    this.search(true);
  }

  close() {
    clearInterval(this.timer);
    clearTimeout(this.pause);
    this.model.off("change:query", this.queried);
    this.lightbox.close();
    this.wall.close();
    this.kernel.close();
    this.el.remove();
  }
}

/**
 * @param {HTMLSelectElement} select @param {string} label
 * @param {[string, string][]} choices @param {string | undefined} value
 */
function options(select, label, choices, value) {
  const known = choices.some(([one]) => one === value);
  const all = value && !known ? [...choices, [value, value]] : choices;
  fill(select, h("option", { value: "" }, label), all.map(([one, text]) => h("option", { value: one }, text)));
  select.value = value ?? "";
  select.classList.toggle("nbimg-on", Boolean(value));
}

export default {
  /** @param {{model: import("./kernel.js").Model, el: HTMLElement}} page */
  render({ model, el }) {
    const gallery = new Gallery(model, el);
    return () => gallery.close();
  },
};
