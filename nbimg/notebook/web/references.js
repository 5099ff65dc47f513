// Images that a prompt refers to: dropped, pasted, picked from files or from the gallery. Stage: inside of the
// panel. Goes out: where they are on the kernel's machine.

import { button, counted, fill, h, openDialog, said } from "./dom.js";
import { dropped, isOurs } from "./drag.js";
import { Kernel, blobUrl } from "./kernel.js";
import { Wall, arraysOf } from "./wall.js";

/** @typedef {{path: string, name: string, sha256: string, width: number, height: number}} Reference */

const PART = 1 << 20;

export class References {
  /**
   * @param {Kernel} kernel @param {HTMLElement} host
   * @param {(refs: Reference[]) => void} onChange @param {(text: string) => void} complain
   */
  constructor(kernel, host, onChange, complain) {
    this.kernel = kernel;
    this.host = host;
    this.onChange = onChange;
    this.complain = complain;
    /** @type {Reference[]} */
    this.refs = [];
    /** @type {Map<string, string>} Content → address of its small picture. */
    this.urls = new Map();
    this.loading = 0;
    this.strip = h("ul", { class: "nbimg-refs", "aria-label": "References" });
    this.hint = h("span", { class: "nbimg-help" });
    this.input = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true, onchange: () => this.files(this.input.files) });
    this.el = h(
      "div",
      { class: "nbimg-drop" },
      this.strip,
      h("div", { class: "nbimg-bar" }, button("plus", "Add images", () => this.input.click(), { words: true }), button("grid", "From the gallery", () => void this.gallery(), { words: true }), this.hint, this.input),
    );
    this.watch();
  }

  watch() {
    const { host } = this;
    let depth = 0;
    const has = (/** @type {DragEvent} */ event) => isOurs(event) || event.dataTransfer?.types.includes("Files");
    host.addEventListener("dragenter", (event) => {
      if (has(event)) host.classList.toggle("nbimg-dropping", ++depth > 0);
    });
    host.addEventListener("dragleave", (event) => {
      if (has(event)) host.classList.toggle("nbimg-dropping", --depth > 0);
    });
    host.addEventListener("dragover", (event) => {
      if (!has(event) || !event.dataTransfer) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
    });
    host.addEventListener("drop", (event) => {
      depth = 0;
      host.classList.remove("nbimg-dropping");
      if (!has(event)) return;
      event.preventDefault();
      event.stopPropagation();
      if (isOurs(event)) dropped(event).then((refs) => this.add(refs), (error) => this.complain(said(error)));
      else this.files(event.dataTransfer?.files ?? null);
    });
    host.addEventListener("paste", (event) => {
      const files = event.clipboardData?.files;
      if (!files?.length) return;
      event.preventDefault();
      event.stopPropagation();
      this.files(files);
    });
  }

  /** @param {Reference[]} refs @param {boolean} [told] */
  set(refs, told = false) {
    this.refs = refs;
    this.draw();
    if (told) this.onChange(refs);
    if (refs.some((ref) => !this.urls.has(ref.sha256))) void this.pictures();
  }

  /** @param {Reference[]} more */
  add(more) {
    const known = new Set(this.refs.map((ref) => ref.path));
    this.set([...this.refs, ...more.filter((ref) => !known.has(ref.path))], true);
  }

  async pictures() {
    const { value, buffers } = await this.kernel.ask("references", { refs: this.refs });
    this.refs.forEach((ref, k) => {
      this.urls.set(ref.sha256, value[k] && buffers[k]?.byteLength ? blobUrl(buffers[k], "image/webp") : "");
    });
    this.draw();
  }

  draw() {
    this.hint.textContent = this.loading ? "reading…" : this.refs.length ? "" : "or drop or paste them here";
    this.strip.hidden = !this.refs.length;
    fill(
      this.strip,
      this.refs.map((ref, k) => {
        const url = this.urls.get(ref.sha256);
        return h(
          "li",
          null,
          url ? h("img", { src: url, alt: ref.name, title: `${ref.name}, ${ref.width}×${ref.height}` }) : h("span", { class: "nbimg-help" }, url === "" ? "gone" : "…"),
          button("close", `Remove ${ref.name}`, () => this.set(this.refs.filter((_, at) => at !== k), true), { class: "nbimg-tiny" }),
        );
      }),
    );
  }

  /** @param {FileList | null} files */
  async files(files) {
    for (const file of [...(files ?? [])]) {
      this.loading++;
      this.draw();
      try {
        this.add([await this.upload(file)]);
      } catch (error) {
        this.complain(said(error));
      } finally {
        this.loading--;
        this.draw();
      }
    }
    this.input.value = "";
  }

  /** @param {File} file @returns {Promise<Reference>} */
  async upload(file) {
    const parts = Math.max(1, Math.ceil(file.size / PART));
    const key = Math.random().toString(36).slice(2);
    for (let part = 0; ; part++) {
      const data = await file.slice(part * PART, (part + 1) * PART).arrayBuffer();
      const { value } = await this.kernel.ask("upload", { name: file.name || "pasted.png", part, parts, key }, [data]);
      if (value) return value;
    }
  }

  /** Choose from what was made in the folder. */
  async gallery() {
    const dialog = openDialog(this.host, "Choose references", "nbimg-choose");
    const wall = new Wall(this.kernel, { label: "Images", rowHeight: 150, many: true });
    let pause = 0;
    const box = h("input", { type: "search", placeholder: "Search prompts", "aria-label": "Search prompts", class: "nbimg-search", oninput: () => (clearTimeout(pause), (pause = window.setTimeout(search, 180))) });
    const use = button("plus", "Use", () => void take(), { words: true, class: "nbimg-primary" });
    const label = /** @type {HTMLElement} */ (use.querySelector("span"));
    const search = async () => {
      const { buffers } = await this.kernel.ask("query", { text: box.value });
      wall.set(...arraysOf(buffers));
    };
    const take = async () => {
      const numbers = wall.meant();
      dialog.close();
      if (numbers.length) this.add((await this.kernel.ask("refer_to", { numbers })).value);
    };
    wall.onOpen = () => void take();
    wall.onKey = (event) => {
      if (event.key === " ") wall.toggle(wall.at);
      else if (event.key === "Enter") void take();
      else return false;
      wall.redress();
      wall.onChange();
      return true;
    };
    wall.onChange = () => {
      label.textContent = `Use ${counted(wall.meant().length, "image")}`;
      use.setAttribute("aria-label", label.textContent);
    };
    dialog.append(
      h("header", null, button("close", "Close", () => dialog.close()), h("h2", { class: "nbimg-title" }, "Choose references"), box, use),
      h("div", { class: "nbimg-room nbimg-whole" }, wall.el),
    );
    dialog.addEventListener("close", () => wall.close());
    await search().catch((error) => this.complain(said(error)));
    wall.el.focus();
  }

  close() {
    for (const url of this.urls.values()) if (url) URL.revokeObjectURL(url);
  }
}
