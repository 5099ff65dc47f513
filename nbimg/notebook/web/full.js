// Whole pictures, fetched when they are looked at. Stage: between the kernel and what shows one picture.

import { h } from "./dom.js";
import { Kernel, blobUrl } from "./kernel.js";

const KEPT = 6;

export class Full {
  /** @param {Kernel} kernel */
  constructor(kernel) {
    this.kernel = kernel;
    /** @type {Map<number, Promise<{url: string, kind: string}>>} */
    this.known = new Map();
  }

  /**
   * @param {number} number
   * @returns {Promise<{url: string, kind: string}>}
   */
  get(number) {
    let found = this.known.get(number);
    if (!found) {
      found = this.kernel
        .ask("full", { number })
        .then(({ value, buffers }) => ({ url: blobUrl(buffers[0], value.mime), kind: value.kind }));
      found.catch(() => this.known.delete(number));
      this.known.set(number, found);
      this.forget();
    }
    return found;
  }

  forget() {
    for (const number of this.known.keys()) {
      if (this.known.size <= KEPT) return;
      this.release(number);
    }
  }

  /** @param {number} number */
  release(number) {
    this.known.get(number)?.then(({ url }) => setTimeout(() => URL.revokeObjectURL(url), 30_000), () => {});
    this.known.delete(number);
  }

  /**
   * An element that shows the picture: at once the small one, then the whole.
   * @param {number} number @param {string | undefined} small @param {string} alt
   * @param {(node: HTMLElement) => void} show
   * @returns {Promise<void>}
   */
  async into(number, small, alt, show) {
    if (small) show(h("img", { src: small, alt, draggable: "false", class: "nbimg-small" }));
    const { url, kind } = await this.get(number);
    if (kind === "video") {
      show(h("video", { src: url, controls: true, loop: true, muted: true, autoplay: true, "aria-label": alt }));
      return;
    }
    const picture = h("img", { src: url, alt, draggable: "false" });
    await picture.decode().catch(() => {});
    show(picture);
  }

  close() {
    for (const number of [...this.known.keys()]) this.release(number);
  }
}
