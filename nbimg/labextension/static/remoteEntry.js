// The door that JupyterLab and Notebook 7 open: a module-federation container, written by hand.
//
// It takes the page's own CodeMirror and registries, loads the module beside it, and hands over plugins.
"use strict";
(() => {
  /**
   * @typedef {{ get: () => Promise<() => any>, loaded?: number | boolean }} Shared
   * @typedef {Record<string, Record<string, Shared>>} Scope
   */
  const here = /** @type {HTMLScriptElement} */ (document.currentScript).src;
  /** @type {Scope} */
  let scope = {};

  /**
   * A package of the page: the version that is in use, or else the newest.
   * @param {string} name
   */
  async function shared(name) {
    const versions = Object.entries(scope[name] ?? {});
    versions.sort(
      ([a, one], [b, other]) =>
        Number(Boolean(other.loaded)) - Number(Boolean(one.loaded)) ||
        b.localeCompare(a, "en", { numeric: true }),
    );
    if (!versions.length) throw new Error(`nbimg: this page has no ${name}`);
    const factory = await versions[0][1].get();
    return factory();
  }

  const container = {
    /** @param {Scope} given */
    init(given) {
      scope = given;
    },
    async get() {
      const [extension, view, state, codemirror, notebook] = await Promise.all([
        import(new URL("extension.js", here).href),
        shared("@codemirror/view"),
        shared("@codemirror/state"),
        shared("@jupyterlab/codemirror"),
        shared("@jupyterlab/notebook"),
      ]);
      const plugins = extension.plugins({ view, state, codemirror, notebook });
      return () => ({ __esModule: true, default: plugins });
    },
  };
  const page = /** @type {{ _JUPYTERLAB?: Record<string, object> }} */ (globalThis);
  page._JUPYTERLAB ??= {};
  page._JUPYTERLAB["nbimg-cells"] = container;
})();
