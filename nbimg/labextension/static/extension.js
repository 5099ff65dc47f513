// Two plugins for JupyterLab and Notebook 7: the colours of nbimg's cells, and the grid that takes the
// place of a live one whose page was loaded again.

import { parts } from "./cells.js";

/** Longer cells keep the colours that they have, in characters. */
const MOST = 50_000;

const THEME = {
  ".cm-nbimg-prompt": { color: "var(--jp-content-font-color1)", fontWeight: "normal", fontStyle: "normal" },
  ".cm-nbimg-magic": { color: "var(--jp-mirror-editor-keyword-color)", fontWeight: "bold" },
  ".cm-nbimg-option": { color: "var(--jp-mirror-editor-keyword-color)", fontWeight: "normal" },
  ".cm-nbimg-value": { color: "var(--jp-content-font-color1)", fontWeight: "normal", fontStyle: "normal" },
  ".cm-nbimg-comment": { color: "var(--jp-content-font-color1)", opacity: "0.75", fontStyle: "italic", fontWeight: "normal" },
  ".cm-nbimg-separator": { color: "var(--jp-mirror-editor-keyword-color)", fontWeight: "bold" },
  ".cm-nbimg-variable": { color: "var(--nbimg-variable)", fontWeight: "bold", fontStyle: "normal" },
  ".cm-nbimg-choice": {
    color: "var(--nbimg-choice)",
    fontWeight: "normal",
    fontStyle: "normal",
    borderBottom: "1px solid currentColor",
  },
  ".cm-nbimg-escape": { color: "var(--jp-content-font-color1)", opacity: "0.75", fontWeight: "normal" },
  ".cm-nbimg-wrong": {
    color: "var(--jp-content-font-color1)",
    textDecoration: "underline wavy var(--jp-error-color1)",
    fontWeight: "normal",
  },
  ".cm-nbimg-rule": { borderTop: "1px solid var(--jp-border-color2)" },
};
// Colours with enough contrast on the ground of a cell in either theme.
const LIGHT = { "&": { "--nbimg-variable": "#a31515", "--nbimg-choice": "#0b57d0" } };
const DARK = {
  "body[data-jp-theme-light='false'] &": { "--nbimg-variable": "#f6a5a0", "--nbimg-choice": "#8ab4f8" },
};

/**
 * Return what the page activates.
 * @param {{ view: any, state: any, codemirror: any, notebook: any }} page Its packages.
 * @returns {object[]}
 */
export function plugins({ view, state, codemirror, notebook }) {
  return [
    {
      id: "nbimg-cells:colours",
      autoStart: true,
      requires: [codemirror.IEditorExtensionRegistry],
      /**
       * @param {any} _app
       * @param {any} registry
       */
      activate(_app, registry) {
        const extension = colours(view, state);
        registry.addExtension({
          name: "nbimg-cells",
          factory: () => codemirror.EditorExtensionRegistry.createImmutableExtension(extension),
        });
      },
    },
    {
      id: "nbimg-cells:ending",
      autoStart: true,
      requires: [notebook.INotebookTracker],
      /**
       * @param {any} _app
       * @param {any} tracker
       */
      activate(_app, tracker) {
        document.addEventListener("nbimg-final", (event) => {
          const detail = /** @type {CustomEvent} */ (event).detail;
          tracker.forEach((/** @type {any} */ panel) => settle(panel.content, detail));
        });
      },
    },
  ];
}

/**
 * The extension of the editor.
 * @param {any} view
 * @param {any} state
 */
function colours(view, state) {
  const { Decoration, EditorView, ViewPlugin } = view;
  const { Prec, RangeSetBuilder } = state;
  const rule = Decoration.line({ class: "cm-nbimg-rule" });
  /** @type {Map<string, any>} */
  const marks = new Map();
  /** @param {string} kind */
  const mark = (kind) => {
    if (!marks.has(kind)) marks.set(kind, Decoration.mark({ class: `cm-nbimg-${kind}` }));
    return marks.get(kind);
  };
  /** @param {any} doc */
  const build = (doc) => {
    const builder = new RangeSetBuilder();
    if (doc.length <= MOST) {
      for (const part of parts(doc.sliceString(0, doc.length, "\n"))) {
        if (part.kind === "separator") builder.add(part.from, part.from, rule);
        builder.add(part.from, part.to, mark(part.kind));
      }
    }
    return builder.finish();
  };
  const plugin = ViewPlugin.fromClass(
    class {
      /** @param {any} editor */
      constructor(editor) {
        this.decorations = build(editor.state.doc);
      }

      /** @param {any} change */
      update(change) {
        if (change.docChanged) this.decorations = build(change.state.doc);
      }
    },
    { decorations: (/** @type {any} */ value) => value.decorations },
  );
  // The innermost mark has the last word on a colour: that of the highest precedence.
  return [Prec.highest(plugin), EditorView.baseTheme({ ...THEME, ...LIGHT }), EditorView.baseTheme(DARK)];
}

/**
 * Put the grid in the place of the widget, as the kernel does where the page is still the same.
 * @param {any} content A notebook.
 * @param {{ id: string, bundle: object, metadata: object }} ending
 */
function settle(content, ending) {
  for (const cell of content?.widgets ?? []) {
    const outputs = cell.model?.outputs;
    for (let k = 0; k < (outputs?.length ?? 0); k += 1) {
      const output = outputs.get(k).toJSON();
      const shown = output.data?.["application/vnd.jupyter.widget-view+json"];
      if (shown?.model_id === ending.id) {
        const { data, metadata } = { data: ending.bundle, metadata: ending.metadata };
        outputs.set(k, { output_type: "display_data", data, metadata });
      }
    }
  }
}
