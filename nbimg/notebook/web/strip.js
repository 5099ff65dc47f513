// The images of one run of a panel, as a lightbox walks through them. Stage: between feed and lightbox. Must not: draw.

import { Kernel } from "./kernel.js";

/** The images of one run, as a lightbox walks through them. */
export class Strip {
  /** @param {Kernel} kernel */
  constructor(kernel) {
    this.kernel = kernel;
    /** @type {import("./feed.js").Tile[]} */
    this.tiles = [];
    this.at = 0;
    this.chosen = new Set();
    /** @type {Map<number, any>} */
    this.known = new Map();
  }

  get length() {
    return this.tiles.length;
  }

  /** @param {import("./feed.js").Tile[]} tiles */
  set(tiles) {
    this.tiles = tiles.filter((tile) => typeof tile.number === "number");
    this.known.clear();
  }

  /** @param {import("./feed.js").Tile} tile */
  placeOf(tile) {
    return this.tiles.findIndex((one) => one.number === tile.number);
  }

  /** @param {number} place */
  number(place) {
    return this.tiles[place]?.number;
  }

  /** @param {number} place */
  place(place) {
    this.at = Math.max(0, Math.min(this.length - 1, place));
  }

  /** @param {number} place */
  async info(place) {
    const tile = this.tiles[place];
    const number = tile?.number;
    if (typeof number !== "number") return undefined;
    if (!this.known.has(number)) {
      const { value } = await this.kernel.ask("tiles", { numbers: [number] });
      this.known.set(number, { ...value[0], url: tile.url });
    }
    return this.known.get(number);
  }

  /** @param {number} number */
  isStarred(number) {
    return Boolean(this.known.get(number)?.star);
  }

  /** @param {number} number @param {boolean} on */
  star(number, on) {
    const info = this.known.get(number);
    if (info) info.star = on;
  }
}
