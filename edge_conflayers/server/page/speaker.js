// Reads an answer out while it is written: to screen readers, in sentences and not in tokens.

const LEAST = 80; // characters at a time, so that they are not interrupted all the time; not tuned

export class Speaker {
  /** @param {Element} region a live region */
  constructor(region) {
    this.region = region;
    this.begin();
  }

  begin() {
    this.region.replaceChildren();
    this.said = 0;
  }

  /**
   * @param {string} text of the answer so far
   * @param {boolean} ended whether that is all
   */
  follow(text, ended) {
    const rest = text.slice(this.said);
    const end = ended ? rest.length : 1 + Math.max(rest.lastIndexOf("\n"), rest.lastIndexOf(". "));
    if (end === 0 || (end < LEAST && !ended)) return;
    this.say(rest.slice(0, end));
    this.said += end;
  }

  say(text) {
    const line = document.createElement("p");
    line.textContent = text;
    this.region.append(line);
  }
}
