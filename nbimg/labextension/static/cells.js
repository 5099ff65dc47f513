// The text of a cell → what each part of it is. The grammar is that of nbimg's own reader: options on the
// first line and behind `---`, prompts between them, `{name}`, `{a|b}`, `{{` and `}}` in these.

/**
 * @typedef {"magic" | "option" | "value" | "comment" | "separator" | "prompt" | "variable" | "choice"
 *   | "escape" | "wrong"} Kind
 */
/** @typedef {{ from: number, to: number, kind: Kind }} Part */

const FIRST = /^(?:[ \t]*\r?\n)*(%%img(?:gen|edit))(?=[ \t\r\n]|$)([^\n]*)/;
const WORD = /"(?:\\.|[^"\\])*"?|'[^']*'?|(?:\\.|[^\s'"\\]|\\)+|\s+/g;
const BRACE = /\{\{|\}\}|\{([^{}]*)\}|[{}]/g;
const NAME = /^\s*[\p{L}_][\p{L}\p{N}_]*\s*$/u;

/**
 * Return the parts of a cell in their order, without gaps in its prompts; none for other cells.
 * @param {string} text
 * @returns {Part[]}
 */
export function parts(text) {
  const first = FIRST.exec(text);
  if (!first) return [];
  const begin = first[0].length - first[2].length;
  /** @type {Part[]} */
  const found = [{ from: begin - first[1].length, to: begin, kind: "magic" }];
  words(first[2], begin, found);
  const line = first[2];
  if (/\s--tasks\b/.test(line)) return found; // data, not prompts
  const lines = /\s--lines\b/.test(line);
  let at = first[0].length + 1;
  let prompt = at;
  for (const row of text.slice(at).split("\n")) {
    const plain = row.replace(/\r$/, "");
    if (!lines && /^---(?:[ \t].*)?$/.test(plain)) {
      prompts(text, prompt, at, found);
      found.push({ from: at, to: at + 3, kind: "separator" });
      words(plain.slice(3), at + 3, found);
      prompt = at + row.length + 1;
    }
    at += row.length + 1;
  }
  prompts(text, prompt, text.length, found);
  return found;
}

/**
 * Options and what belongs to them, as a shell has them.
 * @param {string} text
 * @param {number} begin Where it is in the cell.
 * @param {Part[]} found
 */
function words(text, begin, found) {
  for (const match of text.matchAll(WORD)) {
    const [word] = match;
    if (!word.trim()) continue;
    const from = begin + match.index;
    if (word.startsWith("#")) {
      found.push({ from, to: begin + text.length, kind: "comment" });
      return;
    }
    const option = /^--?[A-Za-z][\w-]*/.exec(word);
    if (option) found.push({ from, to: from + option[0].length, kind: "option" });
    const rest = option ? option[0].length : 0;
    if (rest < word.length) found.push({ from: from + rest, to: from + word.length, kind: "value" });
  }
}

/**
 * A prompt and what is expanded in it.
 * @param {string} text The whole cell.
 * @param {number} from
 * @param {number} to
 * @param {Part[]} found
 */
function prompts(text, from, to, found) {
  const body = text.slice(from, Math.max(from, to));
  let at = 0;
  /** @param {number} end */
  const plain = (end) => {
    if (end > at) found.push({ from: from + at, to: from + end, kind: "prompt" });
  };
  for (const match of body.matchAll(BRACE)) {
    plain(match.index);
    at = match.index + match[0].length;
    found.push({ from: from + match.index, to: from + at, kind: kindOf(match) });
  }
  plain(body.length);
}

/**
 * @param {RegExpMatchArray} match
 * @returns {Kind}
 */
function kindOf(match) {
  if (match[0] === "{{" || match[0] === "}}") return "escape";
  if (match[1] === undefined) return "wrong";
  if (match[1].includes("|")) return "choice";
  return NAME.test(match[1]) ? "variable" : "wrong";
}
