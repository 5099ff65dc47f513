// Everything that is known of a picture, as a column. Stage: inside of the lightbox. Pure.

import { button, copyText, fill, h } from "./dom.js";
import { blobUrl } from "./kernel.js";

/**
 * @param {HTMLElement} column
 * @param {any} about What the kernel answers to `details`.
 * @param {DataView[]} buffers Small pictures of the inputs.
 */
export function fillDetails(column, about, buffers) {
  fill(
    column,
    h(
      "section",
      null,
      h("h3", null, "Prompt", copier("Copy the prompt", about.prompt)),
      h("p", { class: "nbimg-prompt", dir: "auto" }, about.prompt || "(no prompt)"),
    ),
    about.error ? h("section", { class: "nbimg-error" }, h("h3", null, `${about.sign} ${about.word}`), h("p", null, about.error)) : null,
    inputs(about, buffers),
    h(
      "section",
      null,
      h("h3", null, "Made with"),
      h(
        "dl",
        null,
        about.rows.flatMap((/** @type {[string, string]} */ [name, value]) => [
          h("dt", null, name),
          h("dd", { dir: "auto" }, value, (value.length > 24 && !value.includes(" ")) || name === "Seed" ? copier(`Copy ${name}`, value) : null),
        ]),
      ),
    ),
    about.notices.length
      ? h("section", null, h("h3", null, "Notices"), h("ul", null, about.notices.map((/** @type {string} */ one) => h("li", null, one))))
      : null,
    attempts(about.attempts),
  );
}

/** @param {string} label @param {string} text */
function copier(label, text) {
  return button("copy", label, () => void copyText(text), { class: "nbimg-tiny" });
}

/** @param {any} about @param {DataView[]} buffers */
function inputs(about, buffers) {
  if (!about.inputs.length) return null;
  const last = about.inputs.length - 1;
  return h(
    "section",
    null,
    h("h3", null, "Made from"),
    h(
      "div",
      { class: "nbimg-inputs" },
      about.inputs.map((/** @type {string} */ name, /** @type {number} */ k) => {
        const what = about.masked && k === last ? "mask" : name;
        const data = buffers[k];
        if (!data?.byteLength) return h("span", null, what);
        return h("img", { src: blobUrl(data, "image/webp"), alt: what, title: what });
      }),
    ),
  );
}

/** @param {string[][]} rows */
function attempts(rows) {
  if (!rows.length) return null;
  const heads = ["At", "Stage", "Model", "Outcome", "Took", "Job"];
  return h(
    "section",
    null,
    h("h3", null, rows.length === 1 ? "1 attempt" : `${rows.length} attempts`),
    h(
      "div",
      { class: "nbimg-scroll", tabindex: "0", role: "region", "aria-label": "Attempts" },
      h(
        "table",
        null,
        h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))),
        h("tbody", null, rows.map((row) => h("tr", null, row.map((cell) => h("td", null, cell))))),
      ),
    ),
  );
}
