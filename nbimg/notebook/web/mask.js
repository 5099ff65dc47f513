// Paint where a picture is to be changed, and say how. Stage: opened from a wall. Comes in: a picture. Goes out: a
// prompt and, where something was painted, a mask: a PNG of the picture's size, white where it is to change.

import { button, fill, h, openDialog, said } from "./dom.js";
import { Full } from "./full.js";
import { Kernel } from "./kernel.js";
import { Stage } from "./stage.js";

/** @typedef {import("./wall.js").Info} Info */
/** @typedef {{prompt: string, model: string, mask: ArrayBuffer | null}} Edit */

const STEPS = 30;
const INK = "#ff2d75";

/**
 * @param {HTMLElement} host @param {Kernel} kernel @param {Info} info
 * @param {(edit: Edit) => Promise<void>} make @param {(edit: Edit) => Promise<void>} asCell
 */
export function openMask(host, kernel, info, make, asCell) {
  const full = new Full(kernel);
  const dialog = openDialog(host, "Edit", "nbimg-edit");
  const stage = new Stage({ drag: false });
  const canvas = h("canvas", { width: info.width, height: info.height, "aria-label": "Mask: what is painted is changed" });
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  const ring = h("div", { class: "nbimg-ring", hidden: true });
  /** @type {ImageData[]} */
  const past = [];
  /** @type {{name: string, masks: boolean, price: number | null}[]} */
  let models = [];
  let erases = false;

  const size = h("input", { type: "range", min: "4", max: "400", value: String(Math.round(Math.max(12, info.width / 10))), "aria-label": "Size of the brush in pixels" });
  const brush = button("brush", "Paint", () => tool(false), { words: true, key: "b" });
  const eraser = button("erase", "Erase", () => tool(true), { words: true, key: "e" });
  const prompt = h("textarea", { rows: "3", placeholder: "What should be there? e.g. a lit window", "aria-label": "What is to change" });
  const model = h("select", { "aria-label": "Model", onchange: () => sayFit() }, h("option", { value: "" }, "Best at hand"));
  const fit = h("p", { class: "nbimg-fit", role: "status" });
  const note = h("p", { class: "nbimg-note", role: "status" });
  const go = button("edit", "Make the edit", () => void submit(make), { words: true, class: "nbimg-primary" });

  dialog.append(
    h(
      "header",
      null,
      button("close", "Close", () => dialog.close(), { key: "Esc" }),
      h("h2", { class: "nbimg-title" }, "Edit"),
      h(
        "div",
        { class: "nbimg-bar", role: "toolbar", "aria-label": "Brush" },
        brush,
        eraser,
        h("label", { class: "nbimg-slide" }, "Size", size),
        button("undo", "Undo", undo, { key: "u" }),
        button("swap", "Invert", invert, { key: "v" }),
        button("trash", "Clear", clear, { key: "c" }),
      ),
    ),
    h(
      "div",
      { class: "nbimg-room" },
      stage.el,
      h(
        "div",
        { class: "nbimg-column" },
        h("p", { class: "nbimg-help" }, "Paint over what is to change, or leave the picture as it is to change all of it. The wheel zooms, Alt moves."),
        h("label", { class: "nbimg-field" }, "What is to change", prompt),
        h("label", { class: "nbimg-field" }, "Model", model),
        fit,
        h("div", { class: "nbimg-bar" }, go, button("copy", "Copy as cell", () => void submit(asCell), { words: true })),
        note,
      ),
    ),
  );
  tool(false);
  load();
  prompt.focus();

  async function load() {
    const layers = h("div", { class: "nbimg-layers" });
    stage.show(layers, info.width, info.height);
    stage.el.append(ring);
    kernel.ask("editors").then(({ value }) => {
      models = value;
      sayFit();
      for (const one of models) {
        const price = one.price === null ? "" : ` · $${one.price}`;
        const masks = one.masks ? " · takes a mask" : "";
        model.append(h("option", { value: one.name }, `${one.name}${masks}${price}`));
      }
    }, () => {});
    try {
      await full.into(info.number, info.url, info.prompt || "image", (node) => fill(layers, node, canvas));
    } catch (error) {
      note.textContent = said(error);
    }
  }

  /** @param {boolean} erase */
  function tool(erase) {
    erases = erase;
    brush.setAttribute("aria-pressed", String(!erase));
    eraser.setAttribute("aria-pressed", String(erase));
  }

  /** Say which model a mask goes to, or that the one that is picked takes none, and which does. */
  function sayFit() {
    const able = models.find((one) => one.masks);
    const picked = models.find((one) => one.name === model.value);
    fit.classList.toggle("nbimg-warns", false);
    if (!models.length || !isPainted()) return fill(fit);
    if (picked?.masks) return fill(fit, "It changes what is painted, and keeps the rest.");
    if (!picked && able) return fill(fit, `The mask goes to ${able.name}.`);
    fit.classList.toggle("nbimg-warns", true);
    const use = able ? button("", `Use ${able.name}`, () => ((model.value = able.name), sayFit()), { words: true }) : null;
    if (picked) fill(fit, `${picked.name} takes no mask. `, use);
    else fill(fit, "No model that can be used now takes a mask. Clear it to change the whole picture.");
  }

  function remember() {
    past.push(pen.getImageData(0, 0, canvas.width, canvas.height));
    if (past.length > STEPS) past.shift();
  }

  function undo() {
    const before = past.pop();
    if (before) pen.putImageData(before, 0, 0);
    sayFit();
  }

  function clear() {
    remember();
    pen.clearRect(0, 0, canvas.width, canvas.height);
    sayFit();
  }

  function invert() {
    remember();
    pen.globalCompositeOperation = "xor";
    pen.fillStyle = INK;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = "source-over";
    sayFit();
  }

  /** @param {{x: number, y: number}} from @param {{x: number, y: number}} to */
  function stroke(from, to) {
    pen.globalCompositeOperation = erases ? "destination-out" : "source-over";
    pen.strokeStyle = INK;
    pen.lineWidth = Number(size.value);
    pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x + 0.01, to.y);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
  }

  /** @type {{x: number, y: number} | null} */
  let last = null;
  /** @type {PointerEvent | null} */
  let moved = null;
  stage.el.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    stage.el.setPointerCapture(event.pointerId);
    if (event.altKey || event.button === 1) moved = event;
    else {
      remember();
      last = stage.pixel(event);
      stroke(last, last);
    }
    event.preventDefault();
  });
  stage.el.addEventListener("pointermove", (event) => {
    const wide = Number(size.value) * stage.scale();
    const at = stage.point(event);
    ring.hidden = false;
    ring.style.cssText = `width:${wide}px;height:${wide}px;transform:translate(${at.x - wide / 2}px,${at.y - wide / 2}px)`;
    if (moved) {
      stage.moveBy(event.clientX - moved.clientX, event.clientY - moved.clientY);
      moved = event;
    } else if (last) {
      const now = stage.pixel(event);
      stroke(last, now);
      last = now;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) stage.el.addEventListener(end, () => ((last = moved = null), sayFit()));
  stage.el.addEventListener("pointerleave", () => (ring.hidden = true));

  dialog.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return void submit(make);
    const typing = event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLSelectElement;
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    /** @type {Record<string, () => void>} */
    const keys = {
      b: () => tool(false),
      e: () => tool(true),
      u: undo,
      v: invert,
      c: clear,
      "[": () => (size.value = String(Number(size.value) * 0.8)),
      "]": () => (size.value = String(Number(size.value) * 1.25 + 1)),
    };
    if (event.target !== size && stage.key(event)) event.preventDefault();
    else if (keys[event.key]) (keys[event.key](), event.preventDefault());
  });
  dialog.addEventListener("close", () => (full.close(), stage.close()));

  function isPainted() {
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    for (let k = 3; k < pixels.length; k += 4) if (pixels[k] > 0) return true;
    return false;
  }

  /** @returns {Promise<ArrayBuffer | null>} */
  async function mask() {
    if (!isPainted()) return null;
    const flat = h("canvas", { width: canvas.width, height: canvas.height });
    const ink = /** @type {CanvasRenderingContext2D} */ (flat.getContext("2d"));
    ink.drawImage(canvas, 0, 0);
    ink.globalCompositeOperation = "source-in";
    ink.fillStyle = "#fff";
    ink.fillRect(0, 0, flat.width, flat.height);
    ink.globalCompositeOperation = "destination-over";
    ink.fillStyle = "#000";
    ink.fillRect(0, 0, flat.width, flat.height);
    const blob = await new Promise((/** @type {(blob: Blob | null) => void} */ done) => flat.toBlob(done, "image/png"));
    return blob ? blob.arrayBuffer() : null;
  }

  /** @param {(edit: Edit) => Promise<void>} send */
  async function submit(send) {
    if (!prompt.value.trim()) {
      note.textContent = "Say what is to change.";
      prompt.focus();
      return;
    }
    go.disabled = true;
    try {
      await send({ prompt: prompt.value, model: model.value, mask: await mask() });
      if (send === make) dialog.close();
      else note.textContent = "The cell is handed over.";
    } catch (error) {
      note.textContent = said(error);
    } finally {
      go.disabled = false;
    }
  }
  return dialog;
}
