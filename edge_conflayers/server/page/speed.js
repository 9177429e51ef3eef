// The speed of the last answer: now, over time, and by who drafted.

import { drafterOf, FULL_MODEL, legend, strip } from "./drafted.js";
import { draw, make } from "./dom.js";
import { contextUsed } from "./progress.js";
import { keep, recall } from "./storage.js";

const LEAST_BARS = 16; // room for as many, so that the first are not as wide as the chart

export class SpeedPanel {
  /** @param {Element} root #speed in index.html */
  constructor(root) {
    this.root = root;
    this.rate = root.querySelector(".rate");
    this.svg = root.querySelector("svg");
    this.share = root.querySelector(".share");
    this.list = root.querySelector("dl");
    const details = root.querySelector("details");
    details.open = recall("speed-open", matchMedia("(min-width: 68rem)").matches);
    root.querySelector("summary").addEventListener("click", () => keep("speed-open", !details.open));
  }

  /**
   * @param {?Object} told an answer's figures (Progress.summary); null for no answer
   * @param {?number} now tokens per second just now; null once it is over
   */
  show(told, now = null) {
    this.root.hidden = told === null;
    if (told === null) return;
    const rate = now ?? told.rate;
    this.rate.textContent = rate === null ? "–" : rate.toFixed(rate < 10 || told.over ? 1 : 0);
    this.#chart(told);
    this.share.replaceChildren(...(told.tokens ? [strip(told.sources), legend(told.sources)] : []));
    const rows = told.tokens ? rowsOf(told) : [];
    this.list.replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  }

  #chart({ bars, width, seconds, over, rate }) {
    const key = `${width} ${bars.length} ${over && seconds}`;
    if (key === this.chartKey) return;
    this.chartKey = key;
    const heights = bars.map((bar, i) => total(bar) / lengthOf(i));
    function lengthOf(i) {
      const last = i === bars.length - 1;
      return last ? Math.max(seconds - i * width, width / 2) : width;
    }
    // The last one's height is not known before its time is over.
    const shown = over || bars.length === 1 ? bars.length : bars.length - 1;
    const top = ceiling(Math.max(...heights.slice(0, shown), rate ?? 0, 1));
    const room = Math.max(bars.length, LEAST_BARS);
    this.svg.setAttribute("viewBox", `0 0 ${room} 100`);
    const rects = bars.slice(0, shown).flatMap((bar, i) => {
      let y = 100;
      return Object.keys(bar).sort(fullFirst).map((source) => {
        const height = (100 * bar[source]) / lengthOf(i) / top;
        y -= height;
        return draw("rect", { x: i + 0.1, y, width: 0.8, height, "data-drafter": drafterOf(source) });
      });
    });
    if (rate !== null) {
      const y = 100 - (100 * rate) / top;
      rects.push(draw("line", { x1: 0, x2: room, y1: y, y2: y }));
    }
    this.svg.replaceChildren(...rects);
    this.svg.setAttribute("aria-label", `Tokens per second over ${seconds.toFixed(1)} seconds`);
    this.root.querySelector(".top").textContent = bars.length ? `${top} per second` : "";
    this.root.querySelector(".from").textContent = bars.length ? "0 s" : "";
    this.root.querySelector(".mean").textContent = rate === null ? "" : "dashed: mean";
    this.root.querySelector(".to").textContent = bars.length ? `${round(room * width)} s` : "";
  }
}

/** Rows of names and values. */
function rowsOf(told) {
  const { tokens, rounds, drafted, accepted, prompt, contextSize, method, seed } = told;
  const used = contextUsed(told);
  const rows = [["Tokens", String(tokens)]];
  if (rounds) rows.push(["Tokens per round", (tokens / rounds).toFixed(2)]);
  if (drafted) rows.push(["Drafts accepted", `${Math.round((100 * accepted) / drafted)}%, ${accepted} of ${drafted}`]);
  if (prompt) {
    rows.push(["Prompt read", `${prompt.read} in ${prompt.seconds.toFixed(1)} s`]);
    if (prompt.cached) rows.push(["Prompt in cache", `${prompt.cached} tokens`]);
  }
  if (used !== null && contextSize !== null) rows.push(["Context", `${used} of ${contextSize}`]);
  if (method) rows.push(["Method", method]);
  if (seed !== undefined) rows.push(["Seed", String(seed)]);
  return rows;
}

/** The full model's tokens lie at the bottom of every bar. */
const fullFirst = (one, other) => (other === FULL_MODEL) - (one === FULL_MODEL) || one.localeCompare(other);

const total = (bar) => Object.values(bar).reduce((sum, n) => sum + n, 0);

const round = (seconds) => Math.round(seconds * 10) / 10;

/** The next round number. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((each) => each * power >= value);
}
