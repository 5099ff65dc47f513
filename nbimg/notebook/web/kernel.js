// Ask the kernel. Stage: below what is seen. Comes in: names and arguments. Goes out: promises of answers.

/** @typedef {{value: any, buffers: DataView[]}} Answer */
/** @typedef {{get(name: string): any, set(name: string, value: any): void, save_changes(): void,
 *   send(content: any, callbacks?: any, buffers?: ArrayBuffer[]): void,
 *   on(name: string, listener: Function): void, off(name: string, listener: Function): void}} Model */

/** After so many milliseconds without an answer the kernel counts as busy. */
const BUSY_MS = 2500;

export class Kernel {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.prefix = Math.random().toString(36).slice(2);
    this.count = 0;
    /** @type {Map<string, {yes: (answer: Answer) => void, no: (error: Error) => void, at: number}>} */
    this.waiting = new Map();
    /** @type {Map<string, (content: any, buffers: DataView[]) => void>} */
    this.listeners = new Map();
    /** @type {(busy: boolean) => void} */
    this.onBusy = () => {};
    this.busy = false;
    this.heard = (/** @type {any} */ content, /** @type {DataView[]} */ buffers) => this.hear(content, buffers);
    model.on("msg:custom", this.heard);
    this.timer = setInterval(() => this.look(), 500);
  }

  /**
   * @param {string} name
   * @param {Record<string, any>} [args]
   * @param {ArrayBuffer[]} [buffers]
   * @returns {Promise<Answer>}
   */
  ask(name, args = {}, buffers = []) {
    const id = `${this.prefix}:${this.count++}`;
    return new Promise((yes, no) => {
      this.waiting.set(id, { yes, no, at: performance.now() });
      this.model.send({ ask: name, id, args }, undefined, buffers);
    });
  }

  /** @param {string} event @param {(content: any, buffers: DataView[]) => void} listener */
  on(event, listener) {
    this.listeners.set(event, listener);
  }

  /** @param {any} content @param {DataView[]} buffers */
  hear(content, buffers) {
    if (content.event) this.listeners.get(content.event)?.(content, buffers ?? []);
    const waits = this.waiting.get(content.re);
    if (!waits) return;
    this.waiting.delete(content.re);
    if (content.error !== undefined) waits.no(new Error(content.error));
    else waits.yes({ value: content.value, buffers: buffers ?? [] });
    this.look();
  }

  look() {
    const now = performance.now();
    const busy = [...this.waiting.values()].some((one) => now - one.at > BUSY_MS);
    if (busy !== this.busy) this.onBusy((this.busy = busy));
  }

  /** @param {string} name @param {any} value */
  keep(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  close() {
    clearInterval(this.timer);
    this.model.off("msg:custom", this.heard);
  }
}

/**
 * @param {DataView} view
 * @param {string} mime
 */
export function blobUrl(view, mime) {
  return URL.createObjectURL(new Blob([/** @type {any} */ (view)], { type: mime }));
}

/** @param {DataView} view @returns {ArrayBuffer} */
export function bytesOf(view) {
  return /** @type {ArrayBuffer} */ (view.buffer).slice(view.byteOffset, view.byteOffset + view.byteLength);
}
