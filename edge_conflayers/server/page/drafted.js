// Who drafted which part of a text, in colours.

import { draw, make } from "./dom.js";

export const FULL_MODEL = "full";
const COLOURED = ["layers", "lookup", "recycling", "draft-model", "next-state", "bridged"]; // in theme.css
const OTHERS = 2;
const others = []; // sources without a colour of their own, in order of appearance

/** What the style sheet calls a source by. */
export function drafterOf(source) {
  if (source === FULL_MODEL || COLOURED.includes(source)) return source;
  if (!others.includes(source)) others.push(source);
  return `other-${(others.indexOf(source) % OTHERS) + 1}`;
}

/** What people call a source by. */
export function nameOf(source) {
  return source === FULL_MODEL ? "full model" : source;
}

/**
 * Shows a text by who drafted its parts. Of what is shown already, only the last part may have grown.
 *
 * @param {Element} element
 * @param {Array<[string, string]>} runs
 * @param {?string} single the only source to be shown in full strength
 */
export function showRuns(element, runs, single = null) {
  const spans = element.children;
  for (let i = Math.max(0, spans.length - 1); i < runs.length; i++) {
    const [source, text] = runs[i];
    if (!spans[i]) element.append(make("span", { "data-drafter": drafterOf(source), title: nameOf(source) }));
    if (spans[i].textContent !== text) spans[i].textContent = text;
  }
  for (let i = 0; i < spans.length; i++) {
    spans[i].classList.toggle("faded", single !== null && runs[i][0] !== single);
  }
}

/** Sources and how many tokens are theirs, most first. */
function ranked(sources) {
  return Object.entries(sources).sort((one, other) => other[1] - one[1]);
}

/**
 * The sources and their shares.
 *
 * @param {Object<string, number>} sources tokens by source
 * @param {?function(string): void} press makes them buttons
 * @param {?string} single the one that is pressed
 */
export function legend(sources, press = null, single = null) {
  const total = Object.values(sources).reduce((sum, n) => sum + n, 0);
  const entries = ranked(sources).map(([source, n]) => {
    const content = [
      make("i", { "data-drafter": drafterOf(source) }),
      nameOf(source),
      make("span", { class: "muted" }, press ? String(n) : `${Math.round((100 * n) / total)}%`),
    ];
    if (!press) return make("li", { class: "entry" }, ...content);
    const pressed = String(source === single);
    const label = `Show only what ${nameOf(source)} drafted`;
    return make(
      "li",
      {},
      make("button", { type: "button", "aria-pressed": pressed, title: label, click: () => press(source) }, ...content),
    );
  });
  return make("ul", { class: "legend", "aria-label": "Tokens by who drafted them" }, ...entries);
}

/** The shares as one strip. */
export function strip(sources) {
  const total = Object.values(sources).reduce((sum, n) => sum + n, 0);
  const svg = draw("svg", { class: "strip", viewBox: `0 0 ${total} 1`, preserveAspectRatio: "none", "aria-hidden": "true" });
  let x = 0;
  for (const [source, n] of ranked(sources)) {
    svg.append(draw("rect", { x, y: 0, width: n, height: 1, "data-drafter": drafterOf(source) }));
    x += n;
  }
  return svg;
}
