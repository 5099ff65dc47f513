// The fields that a model's schema asks for. Stage: inside of the panel. Comes in: fields as the kernel tells
// them, values. Goes out: a value that was changed; undefined stands for the model's own default.

import { button, fill, h, icon } from "./dom.js";

/** @typedef {{name: string, label: string, kind: string, own: boolean, help: string, default: any, allowed?: any[],
 *   min?: number | null, max?: number | null, step?: number | null, long?: boolean}} Field */
/** @typedef {(field: Field, value: any) => void} OnChange */

let fieldsMade = 0;
const SHORT = 12;

/**
 * @param {Field} field @param {any} value @param {OnChange} onChange
 * @returns {HTMLElement}
 */
export function fieldOf(field, value, onChange) {
  const id = `nbimg-field-${fieldsMade++}`;
  const set = value !== undefined && value !== null && value !== "";
  const change = (/** @type {any} */ now) => {
    row.classList.toggle("nbimg-set", now !== undefined);
    reset.hidden = now === undefined;
    onChange(field, now);
  };
  const reset = button("undo", `Reset ${field.label}`, () => {
    onChange(field, undefined);
    row.replaceWith(fieldOf(field, undefined, onChange));
  }, { class: "nbimg-tiny" });
  reset.hidden = !set;
  const input = controlOf(field, set ? value : undefined, id, change);
  const help = field.help ? h("p", { class: "nbimg-help", id: `${id}-help` }, field.help) : null;
  const group = ["size", "ratio"].includes(kindOf(field));
  const row = h(
    "div",
    { class: `nbimg-row${set ? " nbimg-set" : ""}`, role: group ? "group" : null, "aria-labelledby": group ? `${id}-label` : null },
    h("div", { class: "nbimg-named" }, group ? h("span", { id: `${id}-label` }, field.label) : h("label", { for: id }, field.label), reset),
    input,
    help,
  );
  if (help && !group) input.querySelector(`#${id}`)?.setAttribute("aria-describedby", `${id}-help`);
  return row;
}

/** @param {Field} field */
function kindOf(field) {
  return field.name === "ar" && field.allowed?.length ? "ratio" : field.kind;
}

/**
 * @param {Field} field @param {any} value @param {string} id @param {(value: any) => void} change
 * @returns {HTMLElement}
 */
function controlOf(field, value, id, change) {
  switch (kindOf(field)) {
    case "ratio":
      return ratios(field, value, id, change);
    case "choice":
      return choice(field, value, id, change);
    case "boolean":
      return check(field, value, id, change);
    case "size":
      return size(field, value, id, change);
    case "integer":
    case "number":
      return number(field, value, id, change);
    default:
      return text(field, value, id, change);
  }
}

/** @param {Field} field @param {any} value @param {string} id @param {(value: any) => void} change */
function choice(field, value, id, change) {
  const usual = field.default === null || field.default === undefined ? "as the model likes" : String(field.default);
  const select = h(
    "select",
    { id, onchange: () => change(select.value === "" ? undefined : field.allowed?.[Number(select.value)]) },
    h("option", { value: "" }, `default: ${usual}`),
    field.allowed?.map((one, k) => h("option", { value: String(k) }, String(one))),
  );
  const at = field.allowed?.findIndex((one) => one === value) ?? -1;
  select.value = at < 0 ? "" : String(at);
  return h("div", null, select);
}

/** Aspect ratios as shapes. @param {Field} field @param {any} value @param {string} id @param {(value: any) => void} change */
function ratios(field, value, id, change) {
  const allowed = (field.allowed ?? []).map(String);
  return h(
    "div",
    { class: "nbimg-ratios" },
    allowed.map((one) => {
      const [wide, high] = one.split(":").map(Number);
      const fits = wide > 0 && high > 0;
      const scale = fits ? 16 / Math.max(wide, high) : 0;
      const radio = h("input", { type: "radio", name: id, value: one, onchange: () => change(one === field.default ? undefined : one) });
      radio.checked = one === (value ?? field.default);
      return h("label", { class: "nbimg-ratio" }, radio, h("span", { class: "nbimg-shape", "aria-hidden": "true" }, fits ? h("i", { style: `width:${wide * scale}px;height:${high * scale}px` }) : icon("reference")), h("span", null, one.replaceAll("_", " ")));
    }),
  );
}

/** @param {Field} field @param {any} value @param {string} id @param {(value: any) => void} change */
function check(field, value, id, change) {
  const box = h("input", { type: "checkbox", id, onchange: () => change(box.checked === Boolean(field.default) ? undefined : box.checked) });
  box.checked = Boolean(value ?? field.default);
  return h("div", null, box);
}

/** @param {Field} field @param {any} value @param {string} id @param {(value: any) => void} change */
function number(field, value, id, change) {
  const ranged = typeof field.min === "number" && typeof field.max === "number";
  const whole = field.kind === "integer";
  const step = field.step ?? (whole ? 1 : "any");
  const usual = typeof field.default === "number" ? field.default : undefined;
  const box = h("input", { type: "number", id, min: field.min, max: field.max, step: whole ? step : "any", placeholder: usual ?? "auto", class: "nbimg-number", oninput: () => take(box.value, true) });
  box.value = value ?? "";
  /** @type {HTMLInputElement | null} */
  let slider = null;
  if (ranged) {
    const fine = whole ? step : nice((/** @type {number} */ (field.max) - /** @type {number} */ (field.min)) / 200);
    slider = h("input", { type: "range", min: field.min, max: field.max, step: fine, "aria-label": `${field.label}, slider`, oninput: () => take(slider?.value ?? "", false) });
    slider.value = String(value ?? usual ?? field.min);
  }
  /** @param {string} given @param {boolean} typed */
  function take(given, typed) {
    const now = given === "" ? undefined : Number(given);
    const bad = now !== undefined && (Number.isNaN(now) || (field.min ?? -Infinity) > now || (field.max ?? Infinity) < now || (whole && !Number.isInteger(now)));
    box.setAttribute("aria-invalid", String(bad));
    if (bad) return;
    if (typed && slider) slider.value = String(now ?? usual ?? field.min);
    if (!typed) box.value = String(now);
    change(now === usual && !typed ? undefined : now);
  }
  const range = ranged ? h("span", { class: "nbimg-range" }, `${show(field.min)} – ${show(field.max)}`) : null;
  return h("div", { class: "nbimg-numeric" }, slider, box, range);
}

/** @param {number} step */
function nice(step) {
  const ten = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map((one) => one * ten).find((one) => one >= step) ?? step;
}

/** @param {number | null | undefined} value */
function show(value) {
  return Number(value).toLocaleString("en", { maximumFractionDigits: 3, useGrouping: false });
}

/** @param {Field} field @param {any} value @param {string} id @param {(value: any) => void} change */
function size(field, value, id, change) {
  const [wide, high] = String(value ?? "").split("x");
  const [usualWide, usualHigh] = String(field.default ?? "").split("x");
  const box = (/** @type {string} */ label, /** @type {string} */ now, /** @type {string} */ usual) => {
    const one = h("input", { type: "number", min: field.min ?? 16, max: field.max, step: field.step ?? 1, placeholder: usual || "auto", "aria-label": `${label} in pixels`, class: "nbimg-number", oninput: () => take() });
    one.value = now ?? "";
    return one;
  };
  const width = box("Width", wide, usualWide);
  const height = box("Height", high, usualHigh);
  function take() {
    const pair = [width.value || usualWide, height.value || usualHigh];
    const none = !width.value && !height.value;
    if (none) change(undefined);
    else if (pair.every((one) => Number(one) > 0)) change(pair.join("x"));
  }
  const swap = button("swap", "Swap width and height", () => {
    [width.value, height.value] = [height.value || usualHigh, width.value || usualWide];
    take();
  }, { class: "nbimg-tiny" });
  return h("div", { class: "nbimg-numeric", id }, width, h("span", { "aria-hidden": "true" }, "×"), height, swap);
}

/** @param {Field} field @param {any} value @param {string} id @param {(value: any) => void} change */
function text(field, value, id, change) {
  const json = field.kind === "json";
  const usual = field.default === null || field.default === undefined ? "" : String(field.default);
  const props = {
    id,
    placeholder: usual.slice(0, 200) || (json ? "as JSON" : ""),
    spellcheck: "false",
    oninput: () => {
      if (!json || box.value === "") return change(box.value === "" ? undefined : box.value);
      try {
        change(JSON.parse(box.value));
        box.setAttribute("aria-invalid", "false");
      } catch {
        box.setAttribute("aria-invalid", "true");
      }
    },
  };
  const long = json || field.long || usual.length > SHORT * 6;
  /** @type {HTMLInputElement | HTMLTextAreaElement} */
  const box = long ? h("textarea", { ...props, rows: "2" }) : h("input", { ...props, type: "text" });
  box.value = value === undefined ? "" : json && typeof value !== "string" ? JSON.stringify(value) : String(value);
  return h("div", null, box);
}

/**
 * @param {HTMLElement} first @param {HTMLElement} rest
 * @param {Field[]} fields @param {{options: Record<string, any>, params: Record<string, any>}} form @param {OnChange} onChange
 */
export function fillFields(first, rest, fields, form, onChange) {
  const made = (/** @type {Field[]} */ some) => some.map((field) => fieldOf(field, (field.own ? form.params : form.options)[field.name], onChange));
  fill(first, made(fields.filter((field) => !field.own)));
  fill(rest, made(fields.filter((field) => field.own)));
}
