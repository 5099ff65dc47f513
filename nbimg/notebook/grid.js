// The live grid: numbers, a Stop button and a place for each picture, until the static grid replaces it.
//
// The kernel says what is shown (`frame`, `header`, one `t0`, `t1` … a place and one `p0`, `p1` … a
// picture); this file only draws it. It loads nothing and keeps nothing.

/**
 * @typedef {object} Frame Where the pictures stand.
 * @property {number} width Width of a tile in CSS pixels.
 * @property {number} aspect Width through height of a picture that is not there yet.
 * @property {string[]} rows Labels of the rows.
 * @property {string[]} columns Labels of the columns.
 * @property {number | null} perRow Tiles in a row; null: as many as fit.
 * @property {number} across Cells in a row of the axes; 0: the tiles flow.
 * @property {number[]} cells The number of each tile's cell.
 * @property {boolean} feed Whether the newest come first.
 * @property {number} size How many places there are.
 */
/**
 * @typedef {object} Header What is said above the pictures.
 * @property {string} numbers
 * @property {string} said
 * @property {number} share 0 to 1.
 * @property {"running" | "stopping" | "done"} state
 * @property {boolean} beside Whether the job goes on beside other cells.
 * @property {string[]} heard The pages of which the kernel knows that they show it.
 */
/**
 * @typedef {object} Place What one tile shows.
 * @property {string} s State: queued, running, waiting, ok, partial, failed, refused, cancelled, unknown.
 * @property {string} w The state in words.
 * @property {string} t One more line.
 * @property {string} c The beginning of the prompt.
 * @property {number | null} p How much of it is made.
 * @property {number | null} a Width through height.
 * @property {number} n Its turn.
 * @property {boolean} v Whether its picture is a preview.
 */
/**
 * @typedef {object} Model What anywidget gives.
 * @property {(name: string) => any} get
 * @property {(event: string, listener: (...args: any[]) => void) => void} on
 * @property {(event: string, listener: (...args: any[]) => void) => void} off
 * @property {(message: object) => void} send
 */
/** @typedef {{ place: Place | null, picture: DataView | null, url: string, node: HTMLElement }} Tile */

/** How long Stop waits for an answer of the kernel before it interrupts it. */
const ANSWER_MS = 1500;
/** How often, and how many times, it is said that the widget is shown. */
const GREETING_MS = 400;
const GREETINGS = 12;

/**
 * Draw the job and keep up with it.
 * @param {{ model: Model, el: HTMLElement }} given
 * @returns {() => void} What to do when the drawing goes away.
 */
function render({ model, el }) {
  const root = make("div", "nbimg-live");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Images in the making");
  const head = header(model);
  const pictures = tiles(model);
  root.append(head.node, pictures.node);
  el.replaceChildren(root);
  const update = () => {
    const shown = model.get("final");
    if (shown?.["text/html"]) {
      finish(model, root, shown["text/html"]);
      return;
    }
    head.update();
    pictures.update();
  };
  model.on("change", update);
  update();
  const greeting = greet(model);
  return () => {
    model.off("change", update);
    clearInterval(greeting);
    head.close();
    pictures.close();
  };
}

/**
 * Tell the kernel that the widget is shown, again until it has heard: what is said before the page has a
 * subshell waits for the end of the cell.
 * @param {Model} model
 */
function greet(model) {
  let times = 0;
  const say = () => {
    times += 1;
    if (times > GREETINGS || (times > 1 && model.get("header").heard.includes(page()))) clearInterval(timer);
    else model.send({ kind: "ready", page: page() });
  };
  const timer = setInterval(say, GREETING_MS);
  say();
  return timer;
}

/**
 * The line of numbers, the bar and the button.
 * @param {Model} model
 */
function header(model) {
  const node = make("div", "nbimg-head");
  const line = make("div", "nbimg-line");
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.setAttribute("aria-label", "Progress");
  const numbers = make("span", "nbimg-numbers");
  const stop = document.createElement("button");
  stop.type = "button";
  stop.className = "nbimg-stop";
  stop.dataset.lmSuppressShortcuts = "true";
  const said = make("div", "nbimg-said");
  said.dir = "auto";
  const spoken = make("div", "nbimg-spoken");
  spoken.setAttribute("role", "status");
  line.append(bar, numbers, stop);
  node.append(line, said, spoken);
  let waiting = 0;
  let pressed = false;
  stop.addEventListener("click", () => {
    if (pressed) return;
    pressed = true;
    model.send({ kind: "stop" });
    /** @type {Header} */
    const now = model.get("header");
    // A job in the background is not what the kernel runs: an interrupt would hit another cell.
    if (!now.beside) waiting = setTimeout(() => interrupt(model.get("kernel")), ANSWER_MS);
    update();
  });
  function update() {
    /** @type {Header} */
    const now = model.get("header");
    if (now.state === "stopping") {
      clearTimeout(waiting);
      pressed = true;
    }
    bar.value = now.share;
    numbers.textContent = now.numbers;
    said.textContent = now.said;
    said.hidden = !now.said;
    stop.hidden = now.state === "done";
    stop.textContent = pressed ? "■ Stopping …" : "■ Stop";
    stop.setAttribute("aria-disabled", String(pressed));
    stop.title = "Stop; what is done is kept";
    const heard = milestone(now, pressed);
    if (spoken.textContent !== heard) spoken.textContent = heard;
  }
  return { node, update, close: () => clearTimeout(waiting) };
}

/**
 * What a screen reader says: not each number, but each quarter and each change of what goes on.
 * @param {Header} now
 * @param {boolean} stopping
 */
function milestone(now, stopping) {
  if (stopping) return "Stopping";
  const quarter = Math.floor(now.share * 4) * 25;
  const reason = now.said.replace(/[\d.]+ (s|min|h)\b/g, "").trim();
  return `${quarter} percent${reason ? `, ${reason}` : ""}`;
}

/**
 * The places of the pictures.
 * @param {Model} model
 */
function tiles(model) {
  /** @type {Frame} */
  const frame = model.get("frame");
  const node = make("div", frame.across ? "nbimg-axes" : "nbimg-flow");
  node.style.setProperty("--nbimg-width", `${frame.width}px`);
  node.style.setProperty("--nbimg-aspect", String(frame.aspect));
  const cells = frame.across ? axes(node, frame) : [];
  if (!frame.across) {
    node.setAttribute("role", "list");
    if (frame.perRow) node.style.maxWidth = `${frame.perRow * (frame.width + 12)}px`;
  }
  /** @type {Map<number, Tile>} */
  const known = new Map();
  function update() {
    for (let k = 0; k < frame.size; k += 1) {
      /** @type {Place | undefined} */
      const place = model.get(`t${k}`);
      if (!place) continue;
      let tile = known.get(k);
      if (!tile) {
        tile = { place: null, picture: null, url: "", node: make("div", "nbimg-tile") };
        tile.node.setAttribute("role", frame.across ? "group" : "listitem");
        known.set(k, tile);
        if (frame.across) cells[frame.cells[k]]?.append(tile.node);
        else if (!frame.feed) node.append(tile.node);
      }
      if (frame.feed && place.n !== tile.place?.n) node.prepend(tile.node);
      draw(tile, place, model.get(`p${k}`) || null);
    }
  }
  return {
    node,
    update,
    close: () => known.forEach((tile) => URL.revokeObjectURL(tile.url)),
  };
}

/**
 * The cells of a fan-out with their labels.
 * @param {HTMLElement} node
 * @param {Frame} frame
 * @returns {HTMLElement[]} The cells, row by row.
 */
function axes(node, frame) {
  const left = frame.rows.some(Boolean);
  node.style.gridTemplateColumns = `${left ? "fit-content(128px) " : ""}repeat(${frame.across}, minmax(min(140px, var(--nbimg-width)), var(--nbimg-width)))`;
  if (frame.columns.length) {
    if (left) node.append(make("div", "nbimg-label"));
    for (const name of frame.columns.slice(0, frame.across)) node.append(label(name));
  }
  const cells = [];
  const last = Math.max(...frame.cells);
  for (let k = 0; k <= last; k += 1) {
    if (left && k % frame.across === 0) node.append(label(frame.rows[k / frame.across] ?? ""));
    const cell = make("div", "nbimg-cell");
    if (frame.cells.indexOf(k) !== frame.cells.lastIndexOf(k)) cell.classList.add("nbimg-several");
    cells.push(cell);
    node.append(cell);
  }
  return cells;
}

/**
 * @param {string} text
 */
function label(text) {
  const node = make("div", "nbimg-label");
  node.dir = "auto";
  node.textContent = text;
  node.title = text;
  return node;
}

/**
 * Draw one tile anew where it has changed.
 * @param {Tile} tile
 * @param {Place} place
 * @param {DataView | null} picture
 */
function draw(tile, place, picture) {
  if (tile.place === place && tile.picture === picture) return;
  const fresh = tile.picture !== picture && picture !== null && picture.byteLength > 0;
  const gone = picture === null || picture.byteLength === 0;
  tile.place = place;
  tile.picture = picture;
  tile.node.dataset.state = place.s;
  tile.node.classList.toggle("nbimg-preview", place.v);
  let box = tile.node.querySelector(".nbimg-box");
  if (!(box instanceof HTMLElement)) {
    box = make("div", "nbimg-box");
    const under = make("div", "nbimg-caption");
    under.dir = "auto";
    tile.node.append(box, under, make("div", "nbimg-quiet"));
  }
  const frame = /** @type {HTMLElement} */ (box);
  if (place.a) frame.style.aspectRatio = String(place.a);
  const image = frame.querySelector("img");
  if (fresh) {
    const url = URL.createObjectURL(new Blob([/** @type {DataView<ArrayBuffer>} */ (picture)]));
    const next = image ?? document.createElement("img");
    next.alt = place.v ? `preview: ${place.c}` : place.c;
    next.src = url;
    URL.revokeObjectURL(tile.url);
    tile.url = url;
    if (!image) frame.replaceChildren(next);
  }
  if (gone) {
    URL.revokeObjectURL(tile.url);
    tile.url = "";
    const ended = !["queued", "running", "waiting", "ok"].includes(place.s);
    const word = make("div", "nbimg-word");
    word.textContent = place.w;
    const why = make("div", "nbimg-why");
    why.dir = "auto";
    why.textContent = ended ? place.t : "";
    frame.replaceChildren(word, why);
  } else if (image && !place.v) {
    image.alt = place.c;
  }
  meter(frame, place);
  const [caption, quiet] = Array.from(tile.node.children).slice(1);
  caption.textContent = place.c;
  /** @type {HTMLElement} */ (caption).title = place.c;
  quiet.textContent = below(place, gone);
}

/**
 * The quiet line: what the tile's own words do not say yet.
 * @param {Place} place
 * @param {boolean} gone
 */
function below(place, gone) {
  if (place.s === "ok") {
    return [place.w.startsWith("✓") ? "" : place.w, place.t].filter(Boolean).join(" · ");
  }
  if (place.s === "queued" || place.s === "running" || place.s === "waiting") {
    return [gone ? "" : place.w, place.t].filter(Boolean).join(" · ");
  }
  return "";
}

/**
 * The thin bar of a picture that is being made.
 * @param {HTMLElement} frame
 * @param {Place} place
 */
function meter(frame, place) {
  let bar = frame.querySelector(".nbimg-meter");
  if (place.p === null) {
    bar?.remove();
    return;
  }
  if (!bar) {
    bar = make("div", "nbimg-meter");
    bar.setAttribute("aria-hidden", "true");
  }
  frame.append(bar); // above a picture that came later
  /** @type {HTMLElement} */ (bar).style.width = `${Math.round(place.p * 100)}%`;
}

/**
 * Show the grid in place of the progress: the page was loaded again meanwhile, and the output that the
 * kernel renews belongs to the page before. The extension of nbimg puts it into the notebook as well.
 * @param {Model} model
 * @param {HTMLElement} root
 * @param {string} html Made by nbimg, with every text in it escaped.
 */
function finish(model, root, html) {
  const final = make("div", "nbimg-final");
  final.innerHTML = html;
  root.replaceChildren(final);
  const detail = { id: model.get("id"), bundle: model.get("final"), metadata: model.get("final_metadata") };
  root.dispatchEvent(new CustomEvent("nbimg-final", { bubbles: true, composed: true, detail }));
}

/**
 * Interrupt a kernel that did not answer, as the stop button of the page does. Where the page is no
 * Jupyter server's, nothing happens: the front end's own stop button is there.
 * @param {string} kernel
 */
async function interrupt(kernel) {
  const told = document.getElementById("jupyter-config-data")?.textContent;
  if (!kernel || !told) return;
  const { baseUrl, token } = JSON.parse(told);
  const cookie = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/);
  /** @type {Record<string, string>} */
  const headers = {};
  if (cookie) headers["X-XSRFToken"] = cookie[1];
  if (token) headers["Authorization"] = `token ${token}`;
  const url = `${baseUrl}api/kernels/${encodeURIComponent(kernel)}/interrupt`;
  await fetch(url, { method: "POST", headers, credentials: "same-origin" });
}

/** A name for this page, until it is loaded again. */
function page() {
  const place = /** @type {{ __nbimgPage?: string }} */ (globalThis);
  place.__nbimgPage ??= Math.random().toString(36).slice(2);
  return place.__nbimgPage;
}

/**
 * @param {string} tag
 * @param {string} name
 */
function make(tag, name) {
  const node = document.createElement(tag);
  node.className = name;
  return node;
}

export default { render };
