// The words of a search, as far as buttons change them; what they mean the kernel knows. Pure.

const FIELD = /(?:^|\s)(-?)([a-z]+):("[^"]*"|[^\s"]+)/g;

/**
 * Which fields a search has: `model` → its value, and `is:starred` → itself.
 * @param {string} text
 * @returns {Record<string, string>}
 */
export function filters(text) {
  /** @type {Record<string, string>} */
  const found = {};
  for (const [, no, name, quoted] of text.matchAll(FIELD)) {
    if (no) continue;
    const value = quoted.replaceAll('"', "");
    found[name] = value;
    found[`${name}:${value}`] = value;
  }
  return found;
}

/**
 * The search with another value of a field; empty: without it.
 * @param {string} text @param {string} name @param {string} value
 * @param {string} [only] Leave the field's other values alone.
 */
export function withField(text, name, value, only) {
  const rest = text.replaceAll(FIELD, (whole, no, field, quoted) => {
    const same = field === name && !no && (only === undefined || quoted.replaceAll('"', "") === only);
    return same ? "" : whole;
  });
  const word = value ? `${name}:${/\s/.test(value) ? `"${value}"` : value}` : "";
  return `${rest.trim()} ${word}`.trim();
}

/** @returns {[string, string][]} */
export function dates() {
  const now = new Date();
  /** @type {[string, string][]} */
  const found = [
    ["today", "Today"],
    ["7d", "Last 7 days"],
    ["30d", "Last 30 days"],
  ];
  for (let back = 0; back < 6; back++) {
    const month = new Date(now.getFullYear(), now.getMonth() - back, 1);
    const value = `${month.getFullYear()}-${String(month.getMonth() + 1).padStart(2, "0")}`;
    found.push([value, month.toLocaleDateString("en", { month: "long", year: "numeric" })]);
  }
  return found;
}

/** @returns {[string, string][]} */
export function shapes() {
  return [
    ["wide", "Wide"],
    ["tall", "Tall"],
    ["square", "Square"],
    [">1024", "1024 px or more"],
  ];
}
