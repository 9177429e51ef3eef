// Where messages are written.

export class Composer {
  /**
   * @param {Object} parts
   * @param {HTMLFormElement} parts.form
   * @param {HTMLTextAreaElement} parts.text
   * @param {HTMLButtonElement} parts.sending
   * @param {HTMLButtonElement} parts.stopping
   * @param {Element} parts.editing says that the last message is edited
   * @param {HTMLButtonElement} parts.leaving ends that
   * @param {function(string, boolean): void} parts.send given the message, and whether it takes the last one's place
   * @param {function(): void} parts.stop
   */
  constructor(parts) {
    Object.assign(this, parts);
    this.busy = false;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.text.addEventListener("input", () => this.#fit());
    this.text.addEventListener("keydown", (event) => this.#press(event));
    this.stopping.addEventListener("click", () => {
      this.stop();
      this.focus();
    });
    this.leaving.addEventListener("click", () => {
      this.leaveEditing();
      this.focus();
    });
    addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
      if (this.busy) this.stop();
      else this.leaveEditing();
    });
    this.#fit();
  }

  /** Shows whether an answer is written: then it can be stopped, and nothing be sent. */
  writing(busy) {
    if (this.busy === busy) return;
    const focused = [this.sending, this.stopping].includes(document.activeElement);
    this.busy = busy;
    this.sending.hidden = busy;
    this.stopping.hidden = !busy;
    if (focused) (busy ? this.stopping : this.text).focus();
  }

  /** Puts the last message here to be edited. */
  edit(message) {
    this.editing.hidden = false;
    this.text.value = message;
    this.#fit();
    this.text.focus();
  }

  /** Leaves the last message as it was. */
  leaveEditing() {
    if (this.editing.hidden) return;
    this.editing.hidden = true;
    this.text.value = "";
    this.#fit();
  }

  /** Takes the focus, where that brings up no keyboard on the screen. */
  focus() {
    if (matchMedia("(hover: hover)").matches) this.text.focus();
  }

  #press(event) {
    // While a word is composed, as in Chinese, Enter ends the word.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    const message = this.text.value.trim();
    if (!message || this.busy) return;
    const editing = !this.editing.hidden;
    this.editing.hidden = true;
    this.text.value = "";
    this.#fit();
    this.send(message, editing);
  }

  #fit() {
    this.sending.disabled = this.text.value.trim() === "";
    if (CSS.supports("field-sizing", "content")) return;
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
  }
}
