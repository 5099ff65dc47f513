// The panel. Stage: the whole of it on a page. Comes in: the widget's state (`form`) and the kernel's answers. Goes
// out: the form as it is changed, and Generate.

import { Toasts, button, fill, h, handOver, icon, keepKeys, said, shorten } from "./dom.js";
import { Kernel } from "./kernel.js";
import { Lightbox } from "./lightbox.js";
import { Models } from "./models.js";
import { References } from "./references.js";
import { Feed } from "./feed.js";
import { Strip } from "./strip.js";
import { openHistory } from "./history.js";
import { fillFields } from "./fields.js";

const KEEP_MS = 300;
const PLAN_MS = 350;

/** @type {import("./lightbox.js").Deed[]} */
const DEEDS = [
  { name: "star", icon: "star", label: "Star", key: "s" },
  { name: "reference", icon: "reference", label: "Use as reference", key: "r" },
  { name: "recall", icon: "history", label: "Use its settings", key: "u" },
  { name: "cell", icon: "copy", label: "Copy as cell", key: "c" },
];

class Panel {
  /** @param {import("./kernel.js").Model} model @param {HTMLElement} el */
  constructor(model, el) {
    this.model = model;
    this.kernel = new Kernel(model);
    this.toasts = new Toasts();
    this.form = structuredClone(model.get("form"));
    this.turn = 0;
    this.el = h("div", { class: "nbimg nbimg-panel" });
    this.models = new Models(this.kernel, (name) => (this.change({ model: name }), void this.fields()));
    this.references = new References(this.kernel, this.el, (refs) => (this.change({ refs }), void this.fields()), (text) => this.toasts.show(text, { bad: true }));
    this.feed = new Feed(this.kernel, {
      open: (run, place) => void this.open(run, place),
      reuse: (form) => this.use(form),
      cell: (form) => void this.copyCell(form),
      done: (job) => this.done(job),
    });
    this.strip = new Strip(this.kernel);
    this.lightbox = new Lightbox(this.el, this.kernel, /** @type {any} */ (this.strip), DEEDS, (name, number) => void this.act(name, number));
    this.prompt = h("textarea", { rows: "4", class: "nbimg-prompt-box", "aria-label": "Prompt", placeholder: "What should the picture show?  {red|blue} makes one of each.", oninput: () => this.change({ prompt: this.prompt.value }) });
    this.negative = h("textarea", { rows: "2", "aria-label": "Negative prompt", placeholder: "What should not be there", oninput: () => this.change({ negative: this.negative.value }) });
    this.negativeRow = h("details", { class: "nbimg-more" }, h("summary", null, "Negative prompt"), this.negative);
    this.preview = h("div", { class: "nbimg-foretold", role: "status" });
    this.fanned = h("details", { class: "nbimg-more", hidden: true }, h("summary", null, "Prompts"), h("ol", { class: "nbimg-prompts" }));
    this.first = h("div", { class: "nbimg-fields" });
    this.rest = h("div", { class: "nbimg-fields" });
    this.restRow = h("details", { class: "nbimg-more" }, h("summary", null, "More parameters"), this.rest);
    this.count = h("input", { type: "number", min: "1", max: "1000", class: "nbimg-number", "aria-label": "Images a prompt", oninput: () => this.change({ n: Math.max(1, Math.round(Number(this.count.value)) || 1) }) });
    this.seed = h("input", { type: "number", min: "0", max: "4294967295", class: "nbimg-number nbimg-seed", "aria-label": "Seed", placeholder: "drawn anew", oninput: () => this.typeSeed() });
    this.lock = button("unlock", "Keep the seed", () => this.setLock(!this.form.locked));
    this.go = button("", "Generate", () => void this.generate(), { words: true, class: "nbimg-primary nbimg-go", key: "Ctrl-Enter" });
    this.stop = button("stop", "Stop", () => this.halt(), { words: true });
    this.waiting = h("span", { class: "nbimg-waiting", role: "status", hidden: true }, "the kernel is busy…");
    const left = h(
      "form",
      { class: "nbimg-form", "aria-label": "What to make", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
      h(
        "div",
        { class: "nbimg-formed" },
        this.models.el,
        this.prompt,
        this.preview,
        this.fanned,
        this.negativeRow,
        this.references.el,
        h(
          "div",
          { class: "nbimg-pair" },
          h("label", { class: "nbimg-field" }, "Images", this.count),
          h("div", { class: "nbimg-field" }, h("span", null, "Seed"), h("div", { class: "nbimg-numeric" }, this.seed, this.lock, button("shuffle", "Draw a seed and keep it", () => this.draw()))),
        ),
        this.first,
        this.restRow,
      ),
      h("div", { class: "nbimg-bar nbimg-do" }, this.go, this.stop, h("span", { class: "nbimg-space" }), this.waiting, button("history", "History", () => void openHistory(this.el, this.kernel, this.toasts, (form) => (this.use(form), this.prompt.focus()))), button("copy", "Copy as cell", () => void this.copyCell(this.form), { words: true })),
    );
    fill(this.el, left, this.feed.el, h("div", { class: "nbimg-dropzone", "aria-hidden": "true" }, "Drop images to refer to them"), this.toasts.el);
    this.stop.hidden = true;
    el.append(this.el);
    keepKeys(this.el);
    this.el.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !this.models.el.contains(/** @type {Node} */ (event.target))) void this.generate();
    });
    this.kernel.onBusy = (busy) => (this.waiting.hidden = !busy);
    this.kernel.on("refer", ({ refs }) => this.references.add(refs));
    this.changed = () => {
      if (JSON.stringify(model.get("form")) !== JSON.stringify(this.kept ?? this.form)) this.use(model.get("form"));
    };
    model.on("change:form", this.changed);
    this.show();
    const complain = (/** @type {unknown} */ error) => this.toasts.show(said(error), { bad: true });
    this.models.load().catch(complain);
    this.feed.load().catch(complain);
    void this.fields();
  }

  // ------------------------------------------------------------------ the form

  /** Let the page show what the form holds. */
  show() {
    const { form } = this;
    this.prompt.value = form.prompt;
    this.negative.value = form.negative;
    this.negativeRow.open = Boolean(form.negative);
    this.count.value = String(form.n);
    this.seed.value = form.seed ?? "";
    this.models.set(form.model);
    this.references.set(form.refs);
    this.sayLock();
  }

  /** @param {Record<string, any>} values */
  change(values) {
    Object.assign(this.form, values);
    clearTimeout(this.keeping);
    clearTimeout(this.planning);
    this.keeping = window.setTimeout(() => this.keep(), KEEP_MS);
    this.planning = window.setTimeout(() => void this.plan(), PLAN_MS);
  }

  keep() {
    this.kept = structuredClone(this.form);
    this.kernel.keep("form", this.kept);
  }

  /** @param {any} form */
  use(form) {
    this.form = structuredClone(form);
    this.show();
    this.change({});
    void this.fields();
  }

  typeSeed() {
    const value = this.seed.value === "" ? null : Math.max(0, Math.round(Number(this.seed.value)));
    this.change({ seed: value, locked: value !== null });
    this.sayLock();
  }

  /** @param {boolean} on */
  setLock(on) {
    if (on && this.form.seed === null) return this.draw();
    this.change({ locked: on });
    this.sayLock();
  }

  draw() {
    this.change({ seed: Math.floor(Math.random() * 2 ** 31), locked: true });
    this.seed.value = String(this.form.seed);
    this.sayLock();
  }

  sayLock() {
    this.lock.setAttribute("aria-pressed", String(this.form.locked));
    fill(this.lock, icon(this.form.locked ? "lock" : "unlock"));
    this.lock.title = this.form.locked ? "The seed is kept: the same picture again" : "Each run draws a new seed";
    this.seed.classList.toggle("nbimg-loose", !this.form.locked);
  }

  /** Ask what the model takes. */
  async fields() {
    const turn = (this.fieldTurn = (this.fieldTurn ?? 0) + 1);
    try {
      const { value } = await this.kernel.ask("fields", { model: this.form.model, edit: this.form.refs.length > 0 });
      if (turn !== this.fieldTurn) return;
      this.models.set(this.form.model, this.form.model ? this.models.chosen : value.model);
      fillFields(this.first, this.rest, value.fields, this.form, (field, now) => this.setField(field, now));
      this.restRow.hidden = !this.rest.childElementCount;
      this.negativeRow.hidden = !value.negative && !this.form.negative;
      this.prompt.title = value.about;
    } catch (error) {
      if (turn === this.fieldTurn) fill(this.first, h("p", { class: "nbimg-wrong", role: "alert" }, said(error)));
    }
    void this.plan();
  }

  /** @param {import("./fields.js").Field} field @param {any} now */
  setField(field, now) {
    const name = field.own ? "params" : "options";
    const values = { ...this.form[name] };
    if (now === undefined) delete values[field.name];
    else values[field.name] = now;
    this.change({ [name]: values });
  }

  /** Say what Generate would do. */
  async plan() {
    const turn = ++this.turn;
    if (!this.form.prompt.trim()) {
      this.preview.classList.remove("nbimg-wrong");
      fill(this.preview, h("span", { class: "nbimg-help" }, this.form.refs.length ? "Say what to make of it." : "Say what the picture shows."));
      this.fanned.hidden = true;
      return;
    }
    try {
      const { value } = await this.kernel.ask("plan", { form: this.form });
      if (turn === this.turn) this.sayPlan(value);
    } catch (error) {
      if (turn === this.turn) fill(this.preview, h("span", { class: "nbimg-wrong" }, said(error)));
    }
  }

  /** @param {any} plan */
  sayPlan(plan) {
    this.preview.classList.toggle("nbimg-wrong", Boolean(plan.error));
    if (plan.error) {
      fill(this.preview, plan.error, plan.hint ? h("div", { class: "nbimg-help" }, plan.hint) : null);
      this.fanned.hidden = true;
      return;
    }
    fill(this.preview, h("b", null, plan.text), plan.notices.map((/** @type {string} */ one) => h("div", { class: "nbimg-help" }, one)));
    this.fanned.hidden = plan.prompts.length < 2;
    const grid = plan.rows.length && plan.columns.length ? ` in ${plan.rows.length} rows and ${plan.columns.length} columns` : "";
    const [summary, list] = this.fanned.children;
    summary.textContent = `${plan.prompts.length} prompts${grid}`;
    fill(list, plan.prompts.map((/** @type {string} */ one) => h("li", { dir: "auto" }, shorten(one, 160))));
  }

  // ------------------------------------------------------------------ to make

  async generate() {
    if (this.go.disabled) return;
    this.go.disabled = true;
    try {
      this.keep();
      await this.kernel.ask("generate", { form: this.form });
      this.stop.hidden = false;
    } catch (error) {
      this.toasts.show(said(error), { bad: true });
    } finally {
      this.go.disabled = false;
    }
  }

  halt() {
    for (const run of this.feed.running) this.kernel.ask("cancel", { job: run.id });
  }

  /** @param {any} job */
  done(job) {
    this.stop.hidden = this.feed.running.length === 0;
    const run = this.feed.runs.get(job.id);
    const seed = run?.tiles.find((tile) => tile.seed !== undefined && tile.seed !== null)?.seed;
    if (!this.form.locked && seed !== undefined) {
      this.change({ seed });
      this.seed.value = String(seed);
    }
  }

  /** @param {any} form */
  async copyCell(form) {
    try {
      const { value } = await this.kernel.ask("as_cell", { form });
      await handOver(this.el, this.toasts, value);
    } catch (error) {
      this.toasts.show(said(error), { bad: true });
    }
  }

  /** @param {import("./feed.js").Run} run @param {number} place */
  async open(run, place) {
    this.strip.set(run.tiles);
    const at = this.strip.placeOf(run.tiles[place]);
    if (at >= 0) this.lightbox.show(at);
    else this.toasts.show("It can be opened when its run has ended.", { seconds: 3 });
  }

  /** @param {string} name @param {number} number */
  async act(name, number) {
    try {
      if (name === "star") {
        const on = !this.strip.isStarred(number);
        this.strip.star(number, on);
        await this.kernel.ask("star", { numbers: [number], on });
      } else if (name === "reference") {
        this.references.add((await this.kernel.ask("refer_to", { numbers: [number] })).value);
        this.lightbox.dialog?.close();
      } else if (name === "recall") {
        this.use((await this.kernel.ask("recall", { number })).value);
        this.lightbox.dialog?.close();
      } else if (name === "cell") {
        await handOver(this.el, this.toasts, (await this.kernel.ask("cell", { number })).value);
      }
    } catch (error) {
      this.toasts.show(said(error), { bad: true });
    }
  }

  close() {
    clearTimeout(this.planning);
    clearTimeout(this.keeping);
    this.model.off("change:form", this.changed);
    this.lightbox.close();
    this.models.close();
    this.references.close();
    this.feed.close();
    this.kernel.close();
    this.el.remove();
  }
}

export default {
  /** @param {{model: import("./kernel.js").Model, el: HTMLElement}} page */
  render({ model, el }) {
    const panel = new Panel(model, el);
    return () => panel.close();
  },
};
