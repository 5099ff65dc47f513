// Pictures that are dragged from one widget of the page to another. Stage: between a wall or a feed and whoever takes
// references. What is carried is a name alone: who has the picture is asked for it when it is dropped, as only its
// own kernel knows where it is.

/** @typedef {import("./references.js").Reference} Reference */

const KIND = "application/x-nbimg-images";
const DROPPED = "nbimg-dropped";

/**
 * Let pictures be dragged out of an element; those that can be are `draggable`.
 * @param {HTMLElement} el
 * @param {(event: DragEvent) => number[]} numbersOf The numbers of what is dragged; none: nothing of ours.
 * @param {(numbers: number[]) => Promise<Reference[]>} bring
 */
export function dragsOut(el, numbersOf, bring) {
  el.addEventListener("dragstart", (event) => {
    const numbers = numbersOf(event);
    if (!numbers.length || !event.dataTransfer) return;
    const name = Math.random().toString(36).slice(2);
    event.dataTransfer.setData(KIND, name);
    event.dataTransfer.effectAllowed = "copy";
    const picture = /** @type {Element} */ (event.target).querySelector("img");
    if (picture) event.dataTransfer.setDragImage(picture, 20, 20);
    const answer = (/** @type {Event} */ dropped) => {
      const { detail } = /** @type {CustomEvent} */ (dropped);
      if (detail.name === name) bring(numbers).then(detail.take, detail.fail);
    };
    document.addEventListener(DROPPED, answer);
    el.addEventListener("dragend", () => document.removeEventListener(DROPPED, answer), { once: true });
  });
}

/** Whether pictures of a widget are being dragged. @param {DragEvent} event */
export function isOurs(event) {
  return event.dataTransfer?.types.includes(KIND) ?? false;
}

/**
 * Ask whoever has the pictures that were dropped for them.
 * @param {DragEvent} event
 * @returns {Promise<Reference[]>}
 */
export function dropped(event) {
  const name = event.dataTransfer?.getData(KIND);
  return new Promise((take, fail) => document.dispatchEvent(new CustomEvent(DROPPED, { detail: { name, take, fail } })));
}
