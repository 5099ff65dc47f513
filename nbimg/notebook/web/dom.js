// Elements, icons and words for the page. Stage: below everything of the page. Must not: know a kernel.

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element. `on…` are listeners, `class` and `style` what they say, everything else an attribute.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any> | null} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(.../** @type {(Node | string)[]} */ (flat(children)));
  return node;
}

/** @param {(Child | Child[])[]} children @returns {(Node | string)[]} */
function flat(children) {
  return children
    .flat()
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (typeof child === "number" ? String(child) : /** @type {Node | string} */ (child)));
}

/** @param {Element} node @param {...(Child | Child[])} children */
export function fill(node, ...children) {
  node.replaceChildren(...flat(children));
}

/** Strokes on a field of 16 by 16. @type {Record<string, string>} */
const ICONS = {
  star: "M8 1.8l1.9 4 4.3.5-3.2 3 .9 4.3L8 11.4l-3.9 2.2.9-4.3-3.2-3 4.3-.5z",
  compare: "M8 1.5v13M2 4h4v8H2zM10 4h4v8h-4z",
  reference: "M2 3h8v8H2zM12 6h2v8H6v-2M4 9l2-2 3 3",
  more: "M8 2v4M8 10v4M2 8h4M10 8h4M4 4l1.6 1.6M10.4 10.4L12 12M12 4l-1.6 1.6M5.6 10.4L4 12",
  edit: "M10.5 2.5l3 3L6 13l-3.6.6L3 10zM9 4l3 3",
  copy: "M5.5 5.5h8v8h-8zM3.5 10.5h-1v-8h8v1",
  download: "M8 2v8M4.5 7L8 10.5 11.5 7M2.5 13.5h11",
  trash: "M2.5 4h11M6 4V2.5h4V4M4 4l.7 9.5h6.6L12 4M6.6 6.5v4.5M9.4 6.5v4.5",
  undo: "M5.5 3L2.5 6l3 3M2.5 6H10a3.5 3.5 0 010 7H6",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  left: "M10 3L5 8l5 5",
  right: "M6 3l5 5-5 5",
  info: "M8 7v4.5M8 4.4v.2M8 1.7a6.3 6.3 0 100 12.6A6.3 6.3 0 008 1.7z",
  search: "M7 2.5a4.5 4.5 0 100 9 4.5 4.5 0 000-9zM10.3 10.3L14 14",
  lock: "M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 015 0v2.5",
  unlock: "M4 7.5h8v6H4zM5.5 7.5V5a2.5 2.5 0 014.8-1",
  stop: "M4 4h8v8H4z",
  plus: "M8 3v10M3 8h10",
  history: "M8 4.5V8l2.5 1.5M2.3 6A6 6 0 112 9M2 3v3h3",
  grid: "M2.5 2.5h4.5v4.5H2.5zM9 2.5h4.5v4.5H9zM2.5 9h4.5v4.5H2.5zM9 9h4.5v4.5H9z",
  swap: "M3 5.5h9.5M10 3l2.5 2.5L10 8M13 10.5H3.5M6 8l-2.5 2.5L6 13",
  brush: "M13.5 2.5L7 9M7 9c-2-.5-3.5.8-3.5 2.5 0 1-.6 1.6-1.5 2 2.8.6 6 0 6-2.7C8 9.9 7.6 9.3 7 9z",
  erase: "M6.5 13L2.5 9 9 2.5 13.5 7l-6 6zM5.5 6l4.5 4.5M7.5 13h6",
  shuffle: "M2 4.5h2.5l6 7H14M2 11.5h2.5l1.5-1.8M8.5 6.3l2-1.8H14M12 2.5l2 2-2 2M12 9.5l2 2-2 2",
  key: "M10.5 2.5a3 3 0 100 6 3 3 0 000-6zM8.3 7.7L3 13v1h2v-1.5h1.5V11L8 9.5",
};

/**
 * @param {string} name
 * @param {boolean} [full]
 * @returns {SVGElement}
 */
export function icon(name, full = false) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", full ? "nbimg-icon nbimg-full" : "nbimg-icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name] ?? "");
  svg.append(path);
  return svg;
}

/**
 * A button with an icon; its words are seen, or only heard and shown on hover.
 * @param {string} name Of the icon; empty: none.
 * @param {string} label
 * @param {(event: MouseEvent) => void} press
 * @param {{words?: boolean, key?: string, class?: string}} [how]
 * @returns {HTMLButtonElement}
 */
export function button(name, label, press, how = {}) {
  const hint = how.key ? `${label} (${how.key})` : label;
  return h(
    "button",
    {
      type: "button",
      class: `nbimg-button ${how.class ?? ""}`,
      title: how.words && !how.key ? null : hint,
      "aria-label": label,
      "aria-keyshortcuts": how.key && /^\w$/.test(how.key) ? how.key : null,
      onclick: press,
    },
    name ? icon(name) : null,
    how.words ? h("span", null, label) : null,
  );
}

/** @param {number} count @param {string} one */
export function counted(count, one) {
  return `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
}

/** @param {string} text @param {number} limit */
export function shorten(text, limit) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= limit ? line : `${line.slice(0, limit - 1).trimEnd()}…`;
}

/** @param {unknown} error */
export function said(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Lines that come up for a while, and are read aloud; with something to press where there is.
 */
export class Toasts {
  constructor() {
    this.el = h("div", { class: "nbimg-toasts", role: "status", "aria-live": "polite" });
  }

  /**
   * @param {string} text
   * @param {{action?: string, press?: () => void, bad?: boolean, seconds?: number}} [how]
   * @returns {() => void} Takes it away.
   */
  show(text, how = {}) {
    const toast = h("div", { class: how.bad ? "nbimg-toast nbimg-bad" : "nbimg-toast" }, h("span", null, text));
    const gone = () => toast.remove();
    if (how.action) {
      toast.append(
        h("button", { type: "button", class: "nbimg-link", onclick: () => (gone(), how.press?.()) }, how.action),
      );
    }
    toast.append(button("close", "Dismiss", gone));
    while (this.el.children.length > 2) this.el.firstChild?.remove();
    this.el.append(toast);
    setTimeout(gone, 1000 * (how.seconds ?? (how.bad ? 12 : 6)));
    return gone;
  }
}

/**
 * Put a text on the clipboard, also where the page may not use it.
 * @param {string} text
 * @returns {Promise<boolean>}
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { style: "position:fixed;opacity:0", "aria-hidden": "true" });
    area.value = text;
    const host = document.querySelector("dialog[open].nbimg-dialog") ?? document.body;
    host.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/**
 * Give a text to whoever asked for it: on the clipboard, else in a dialog from which it can be taken.
 * @param {HTMLElement} host @param {Toasts} toasts @param {string} text @param {string} [words] What is said then.
 */
export async function handOver(host, toasts, text, words) {
  if (await copyText(text)) {
    toasts.show(words ?? `Copied: ${shorten(text, 90)}`);
    return;
  }
  const dialog = openDialog(host, "Copy this", "nbimg-text");
  const area = h("textarea", { rows: "8", readonly: true, "aria-label": "Text to copy" });
  area.value = text;
  dialog.append(h("header", null, button("close", "Close", () => dialog.close()), h("h2", { class: "nbimg-title" }, "The clipboard is closed to this page. Copy it from here.")), area);
  area.select();
}

/**
 * Let nobody else have the keys that are pressed inside: a notebook would delete its cells.
 * @param {HTMLElement} node
 */
export function keepKeys(node) {
  node.setAttribute("data-lm-suppress-shortcuts", "true");
  node.addEventListener("keydown", (event) => event.stopPropagation());
}

/**
 * A dialog over the whole page, in which the focus stays until it is closed.
 * @param {HTMLElement} host
 * @param {string} label
 * @param {string} kind Its class.
 * @returns {HTMLDialogElement}
 */
export function openDialog(host, label, kind) {
  const dialog = h("dialog", { class: `nbimg-dialog ${kind}`, "aria-label": label });
  keepKeys(dialog);
  const before = /** @type {HTMLElement | null} */ (document.activeElement);
  dialog.addEventListener("close", () => {
    dialog.remove();
    before?.focus({ preventScroll: true });
  });
  host.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Whether whoever looks wants no movement. */
export function calm() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
