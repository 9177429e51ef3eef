// The settings: a dialog, and what this browser keeps of it.

import { keep, recall } from "./storage.js";

const NUMBERS = ["temperature", "seed", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens"];
const TEXTS = ["system", "stop"];

export class Settings {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {function(): void} changed called when they were changed
   */
  constructor(dialog, changed) {
    this.dialog = dialog;
    this.form = dialog.querySelector("form");
    this.values = recall("settings", {});
    this.key = recall("key", "", "sessionStorage") || recall("key", "");
    this.form.addEventListener("submit", () => {
      this.#take();
      changed();
    });
    dialog.querySelector("#settings-cancel").addEventListener("click", () => dialog.close());
    dialog.querySelector("#settings-reset").addEventListener("click", () => this.#fill({}, "", false));
    dialog.addEventListener("pointerdown", (event) => {
      if (event.target === dialog) dialog.close(); // outside of it
    });
  }

  /** How many differ from the server's. */
  get count() {
    return Object.keys(this.values).length;
  }

  get system() {
    return this.values.system ?? "";
  }

  get maxTokens() {
    return this.values.max_tokens ?? null;
  }

  /** What a request gives of them. */
  get request() {
    const { system, stop, ...given } = this.values;
    const stops = (stop ?? "").split("\n").filter(Boolean);
    return stops.length ? { ...given, stop: stops.map(unescape) } : given;
  }

  /** Opens the dialog, at this field. */
  open(name = null) {
    this.#fill(this.values, this.key, recall("key", "") !== "");
    this.dialog.showModal();
    if (name !== null) this.form.elements[name].focus();
  }

  #fill(values, key, remember) {
    const { elements } = this.form;
    for (const name of [...NUMBERS, ...TEXTS]) elements[name].value = values[name] ?? "";
    elements.key.value = key;
    elements.remember.checked = remember;
  }

  #take() {
    const { elements } = this.form;
    const values = {};
    for (const name of NUMBERS) if (elements[name].value !== "") values[name] = Number(elements[name].value);
    for (const name of TEXTS) if (elements[name].value.trim() !== "") values[name] = elements[name].value;
    this.values = values;
    keep("settings", this.count ? values : undefined);
    this.key = elements.key.value.trim();
    const remember = elements.remember.checked;
    keep("key", this.key && !remember ? this.key : undefined, "sessionStorage");
    keep("key", this.key && remember ? this.key : undefined);
  }
}

/** A stop string as it was meant: \n is a line end, \t a tab, \\ a backslash. */
function unescape(text) {
  return text.replace(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]);
}
