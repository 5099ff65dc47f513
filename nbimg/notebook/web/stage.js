// One picture that can be zoomed and moved. Stage: inside of lightbox, comparison and mask. Comes in: a picture,
// wheel, pointer, keys. Goes out: which part of it is seen, so that several can show the same part.

import { h } from "./dom.js";

/**
 * What is seen: `zoom` 1 shows the whole; `u`, `v` is the point of the picture in the middle, 0 to 1.
 * @typedef {{zoom: number, u: number, v: number}} View
 */

const MOST = 64; // pixels of the screen a pixel of the picture
const STEP = 1.25;

/** @returns {View} */
export function wholeView() {
  return { zoom: 1, u: 0.5, v: 0.5 };
}

export class Stage {
  /** @param {{drag?: boolean}} [how] `drag`: whether a pointer moves the picture. */
  constructor(how = {}) {
    this.view = wholeView();
    this.size = { width: 1, height: 1 };
    /** @type {(view: View) => void} */
    this.onView = () => {};
    this.canvas = h("div", { class: "nbimg-picture" });
    this.el = h(
      "div",
      {
        class: "nbimg-stage",
        onwheel: (/** @type {WheelEvent} */ event) => this.wheel(event),
        ondblclick: (/** @type {MouseEvent} */ event) => this.flip(event),
      },
      this.canvas,
    );
    this.el.addEventListener("wheel", () => {}, { passive: false });
    if (how.drag !== false) this.drags();
    this.sized = new ResizeObserver(() => this.apply());
    this.sized.observe(this.el);
  }

  /**
   * @param {HTMLElement} node An image, a video or a canvas.
   * @param {number} width @param {number} height
   */
  show(node, width, height) {
    this.size = { width: width || 1, height: height || 1 };
    this.canvas.replaceChildren(node);
    this.apply();
  }

  /** Pixels of the screen a pixel of the picture, when all of it is seen; small ones are enlarged a little. */
  fit() {
    const { clientWidth, clientHeight } = this.el;
    const fit = Math.min(clientWidth / this.size.width, clientHeight / this.size.height);
    return Math.min(fit, 4) || 1;
  }

  scale() {
    return this.fit() * this.view.zoom;
  }

  /** @param {View} view @param {boolean} [told] */
  set(view, told = false) {
    this.view = { ...view };
    this.apply();
    if (told) this.onView(this.view);
  }

  apply() {
    const { clientWidth, clientHeight } = this.el;
    const fit = this.fit();
    const most = Math.max(1, MOST / fit);
    this.view.zoom = Math.max(1, Math.min(most, this.view.zoom));
    const scale = fit * this.view.zoom;
    this.view.u = held(this.view.u, clientWidth / (this.size.width * scale));
    this.view.v = held(this.view.v, clientHeight / (this.size.height * scale));
    const x = clientWidth / 2 - this.view.u * this.size.width * scale;
    const y = clientHeight / 2 - this.view.v * this.size.height * scale;
    this.canvas.style.width = `${this.size.width}px`;
    this.canvas.style.height = `${this.size.height}px`;
    this.canvas.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.canvas.classList.toggle("nbimg-pixels", scale > 3);
    this.el.classList.toggle("nbimg-movable", this.view.zoom > 1.001);
  }

  /**
   * Zoom so that a point of the window stays where it is; without one the middle.
   * @param {number} factor @param {{x: number, y: number}} [point]
   */
  zoomBy(factor, point) {
    const before = this.scale();
    const at = point ?? { x: this.el.clientWidth / 2, y: this.el.clientHeight / 2 };
    const off = { x: at.x - this.el.clientWidth / 2, y: at.y - this.el.clientHeight / 2 };
    const most = Math.max(1, MOST / this.fit());
    const zoom = Math.max(1, Math.min(most, this.view.zoom * factor));
    const after = this.fit() * zoom;
    const u = this.view.u + (off.x / before - off.x / after) / this.size.width;
    const v = this.view.v + (off.y / before - off.y / after) / this.size.height;
    this.set({ zoom, u, v }, true);
  }

  /** Show all, or each pixel as one. @param {{x: number, y: number}} [point] */
  toggle(point) {
    if (this.view.zoom > 1.001) this.set(wholeView(), true);
    else this.zoomBy(Math.max(2, 1 / this.fit()), point);
  }

  /** @param {number} dx @param {number} dy In pixels of the screen. */
  moveBy(dx, dy) {
    const scale = this.scale();
    const { zoom, u, v } = this.view;
    this.set({ zoom, u: u - dx / scale / this.size.width, v: v - dy / scale / this.size.height }, true);
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean} Whether it was one of ours.
   */
  key(event) {
    const step = 80;
    const zoomed = this.view.zoom > 1.001;
    /** @type {Record<string, () => void>} */
    const keys = {
      "+": () => this.zoomBy(STEP),
      "=": () => this.zoomBy(STEP),
      "-": () => this.zoomBy(1 / STEP),
      0: () => this.set(wholeView(), true),
      1: () => this.zoomBy(1 / this.scale()),
    };
    if (zoomed && event.shiftKey) {
      keys.ArrowLeft = () => this.moveBy(step, 0);
      keys.ArrowRight = () => this.moveBy(-step, 0);
      keys.ArrowUp = () => this.moveBy(0, step);
      keys.ArrowDown = () => this.moveBy(0, -step);
    }
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    act?.();
    return act !== undefined;
  }

  /** A point of the window in pixels of the picture. @param {{clientX: number, clientY: number}} event */
  pixel(event) {
    const box = this.el.getBoundingClientRect();
    const scale = this.scale();
    return {
      x: (event.clientX - box.left - box.width / 2) / scale + this.view.u * this.size.width,
      y: (event.clientY - box.top - box.height / 2) / scale + this.view.v * this.size.height,
    };
  }

  /** @param {{clientX: number, clientY: number}} event */
  point(event) {
    const box = this.el.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    event.preventDefault();
    const far = event.deltaMode ? event.deltaY * 30 : event.deltaY;
    this.zoomBy(Math.exp(-far / 400), this.point(event));
  }

  /** @param {MouseEvent} event */
  flip(event) {
    if (!(event.target instanceof HTMLVideoElement)) this.toggle(this.point(event));
  }

  drags() {
    /** @type {Map<number, PointerEvent>} */
    const held = new Map();
    this.el.addEventListener("pointerdown", (event) => {
      if (event.button || event.target instanceof HTMLVideoElement) return;
      held.set(event.pointerId, event);
      this.el.setPointerCapture(event.pointerId);
    });
    this.el.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return;
      const other = [...held.values()].find((one) => one.pointerId !== event.pointerId);
      if (other) {
        const apart = (/** @type {PointerEvent} */ one) =>
          Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
        this.zoomBy(apart(event) / apart(before), this.point(other));
      } else {
        this.moveBy(event.clientX - before.clientX, event.clientY - before.clientY);
      }
      held.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.el.addEventListener(end, (event) => held.delete(/** @type {PointerEvent} */ (event).pointerId));
    }
  }

  close() {
    this.sized.disconnect();
  }
}

/**
 * Keep the edge of the picture from leaving the edge of the window.
 * @param {number} middle @param {number} part Of the picture that is seen.
 */
function held(middle, part) {
  if (part >= 1) return 0.5;
  return Math.max(part / 2, Math.min(1 - part / 2, middle));
}
