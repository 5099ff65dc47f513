// Two to four pictures beside each other, or two over each other with a line between. Stage: opened from a wall.

import { button, h, openDialog, said, shorten } from "./dom.js";
import { Full } from "./full.js";
import { Kernel } from "./kernel.js";
import { Stage, wholeView } from "./stage.js";

/** @typedef {import("./wall.js").Info} Info */

const MOST = 4;

/**
 * @param {HTMLElement} host @param {Kernel} kernel @param {Info[]} infos
 * @param {(number: number) => void} onStar
 */
export function compare(host, kernel, infos, onStar) {
  const full = new Full(kernel);
  const dialog = openDialog(host, "Compare", "nbimg-compare");
  const stages = infos.slice(0, MOST).map(() => new Stage());
  let order = infos.slice(0, MOST);
  let slides = false;
  let split = 50;

  const line = h("div", { class: "nbimg-seam", "aria-hidden": "true" });
  const divider = h("input", {
    type: "range",
    min: "0",
    max: "100",
    value: "50",
    step: "0.5",
    class: "nbimg-divider",
    "aria-label": "Divider between the two pictures, per cent from the left",
    oninput: () => place(Number(divider.value)),
  });
  const beside = button("compare", "Side by side", () => set(false), { words: true, key: "b" });
  const over = button("swap", "Slider", () => set(true), { words: true, key: "l" });
  const figures = h("div", { class: "nbimg-room" });
  dialog.append(
    h(
      "header",
      null,
      button("close", "Close", () => dialog.close(), { key: "Esc" }),
      h("h2", { class: "nbimg-title" }, `Comparing ${stages.length} pictures`),
      h("div", { class: "nbimg-bar", role: "toolbar", "aria-label": "Comparison" }, beside, stages.length === 2 ? over : null, button("undo", "Swap", swap, { words: true, key: "x" })),
    ),
    figures,
  );

  for (const stage of stages) {
    stage.onView = (view) => {
      for (const other of stages) if (other !== stage) other.set(view);
    };
  }

  /** @param {Info} info @param {Stage} stage @param {number} k */
  function figure(info, stage, k) {
    const star = button("star", "Star", () => (onStar(info.number), (info.star = !info.star), mark()), { class: "nbimg-tiny" });
    const mark = () => star.setAttribute("aria-pressed", String(info.star));
    mark();
    const facts = [info.model, info.seed === null ? "" : `seed ${info.seed}`, info.width ? `${info.width}×${info.height}` : ""];
    return h(
      "figure",
      { class: k ? "nbimg-second" : "nbimg-first" },
      stage.el,
      h("figcaption", null, star, h("b", null, "ABCD"[k]), h("span", { dir: "auto" }, shorten(info.prompt, 90)), h("span", { class: "nbimg-facts" }, facts.filter(Boolean).join(" · "))),
    );
  }

  function build() {
    figures.replaceChildren(...order.map((info, k) => figure(info, stages[k], k)));
    order.forEach((info, k) => load(info, stages[k]));
    if (slides) figures.append(line, divider);
    dialog.classList.toggle("nbimg-slides", slides);
    beside.setAttribute("aria-pressed", String(!slides));
    over.setAttribute("aria-pressed", String(slides));
    place(split);
    for (const stage of stages) stage.set(wholeView());
  }

  /** @param {Info} info @param {Stage} stage */
  async function load(info, stage) {
    try {
      await full.into(info.number, info.url, info.prompt || "image", (node) => stage.show(node, info.width, info.height));
    } catch (error) {
      stage.show(h("div", { class: "nbimg-reason" }, said(error)), 320, 200);
    }
  }

  /** @param {boolean} on */
  function set(on) {
    slides = on && stages.length === 2;
    build();
    if (slides) divider.focus();
  }

  function swap() {
    order = [...order.slice(1), order[0]];
    build();
  }

  /** @param {number} at Per cent. */
  function place(at) {
    split = Math.max(0, Math.min(100, at));
    divider.value = String(split);
    figures.style.setProperty("--split", `${split}%`);
  }

  line.addEventListener("pointerdown", (event) => {
    line.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  line.addEventListener("pointermove", (event) => {
    if (!line.hasPointerCapture(event.pointerId)) return;
    const box = figures.getBoundingClientRect();
    place((100 * (event.clientX - box.left)) / box.width);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "b") set(false);
    else if (event.key === "l") set(true);
    else if (event.key === "x") swap();
    else if (event.target !== divider && slides && event.key === "ArrowLeft" && !event.shiftKey) place(split - 2);
    else if (event.target !== divider && slides && event.key === "ArrowRight" && !event.shiftKey) place(split + 2);
    else if (event.target === divider || !stages[0].key(event)) return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    full.close();
    for (const stage of stages) stage.close();
  });
  build();
  return dialog;
}
