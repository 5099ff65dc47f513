// The prompts of a folder, to be taken up again. Stage: opened from the panel. Goes out: the form of the one chosen.

import { Toasts, button, fill, h, openDialog, said, shorten } from "./dom.js";
import { Kernel } from "./kernel.js";

const TYPING_MS = 180;

/**
 * @param {HTMLElement} host @param {Kernel} kernel @param {Toasts} toasts
 * @param {(form: any) => void} use
 */
export async function openHistory(host, kernel, toasts, use) {
  const dialog = openDialog(host, "History of prompts", "nbimg-history");
  const complain = (/** @type {unknown} */ error) => toasts.show(said(error), { bad: true });
  const list = h("div", { class: "nbimg-past", role: "list" });
  let pause = 0;
  const typed = () => {
    clearTimeout(pause);
    pause = window.setTimeout(() => search().catch(complain), TYPING_MS);
  };
  const box = h("input", { type: "search", placeholder: "Search prompts", "aria-label": "Search prompts", class: "nbimg-search", oninput: typed });

  async function search() {
    const { value } = await kernel.ask("history", { text: box.value });
    fill(list, value.length ? value.map(row) : h("p", { class: "nbimg-help" }, "No prompt yet."));
  }

  /** @param {{number: number, prompt: string, model: string, at: number, count: number}} one */
  function row(one) {
    const day = new Date(one.at * 1000).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
    const about = [one.model.split("/").pop(), day, one.count > 1 ? `${one.count} images` : ""].filter(Boolean).join(" · ");
    const words = [h("span", { dir: "auto" }, shorten(one.prompt, 240)), h("span", { class: "nbimg-help" }, about)];
    return h("div", { role: "listitem" }, h("button", { type: "button", class: "nbimg-once", onclick: () => take(one.number).catch(complain) }, words));
  }

  /** @param {number} number */
  async function take(number) {
    dialog.close();
    use((await kernel.ask("recall", { number })).value);
  }

  dialog.append(h("header", null, button("close", "Close", () => dialog.close()), h("h2", { class: "nbimg-title" }, "History of prompts"), box), list);
  await search().catch(complain);
  box.focus();
}
