// Lay pictures out in rows that fill the width. Pure; a hundred thousand take a few milliseconds.

/**
 * @typedef {Object} Layout
 * @property {Float32Array} x Left edge of each picture.
 * @property {Float32Array} width
 * @property {Int32Array} row The row of each picture.
 * @property {Int32Array} first The first picture of each row, and one more entry: how many there are.
 * @property {Float64Array} y Top of each row, and one more entry: where the last one ends.
 * @property {Float32Array} height Of each row.
 */

const NARROWEST = 400;
const WIDEST = 3000;

/**
 * @param {Uint16Array} ratios Width as thousandths of the height, one a picture.
 * @param {number} space Width of a row in pixels.
 * @param {number} target Height of a row in pixels, about.
 * @param {number} gap Between pictures in pixels.
 * @returns {Layout}
 */
export function justify(ratios, space, target, gap) {
  const count = ratios.length;
  const x = new Float32Array(count);
  const width = new Float32Array(count);
  const row = new Int32Array(count);
  const first = [0];
  const y = [0];
  /** @type {number[]} */
  const heights = [];
  let begin = 0;
  let sum = 0;
  let top = 0;
  for (let k = 0; k < count; k++) {
    const ratio = shape(ratios[k]);
    const wide = sum + ratio;
    const full = wide * target + (k - begin) * gap >= space;
    if (full && k > begin && tooWide(sum, wide, k - begin, space, target, gap)) {
      top = close(k, sum, (space - (k - begin - 1) * gap) / sum);
      sum = ratio;
      if (sum * target >= space) {
        top = close(k + 1, sum, space / sum);
        sum = 0;
      }
    } else if (full) {
      top = close(k + 1, wide, (space - (k - begin) * gap) / wide);
      sum = 0;
    } else {
      sum = wide;
    }
  }
  if (begin < count) top = close(count, sum, Math.min(target, (space - (count - begin - 1) * gap) / sum));

  /** @param {number} end @param {number} _sum @param {number} height */
  function close(end, _sum, height) {
    let left = 0;
    for (let k = begin; k < end; k++) {
      x[k] = left;
      width[k] = shape(ratios[k]) * height;
      row[k] = heights.length;
      left += width[k] + gap;
    }
    heights.push(height);
    begin = end;
    first.push(end);
    y.push(top + height + gap);
    return top + height + gap;
  }

  return {
    x,
    width,
    row,
    first: Int32Array.from(first),
    y: Float64Array.from(y),
    height: Float32Array.from(heights),
  };
}

/** @param {number} ratio */
function shape(ratio) {
  return Math.max(NARROWEST, Math.min(WIDEST, ratio)) / 1000;
}

/**
 * Whether a row is nearer to its target without the picture that makes it full.
 * @param {number} without @param {number} withIt @param {number} many
 * @param {number} space @param {number} target @param {number} gap
 */
function tooWide(without, withIt, many, space, target, gap) {
  const taller = (space - (many - 1) * gap) / without;
  const lower = (space - many * gap) / withIt;
  return taller / target < target / lower;
}

/**
 * The row that a height falls into.
 * @param {Layout} layout
 * @param {number} at
 */
export function rowAt(layout, at) {
  let low = 0;
  let high = layout.height.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (layout.y[middle] <= at) low = middle;
    else high = middle - 1;
  }
  return Math.max(0, low);
}
