// The conversation as it is seen.

import { legend, showRuns } from "./drafted.js";
import { copyButton, iconButton, make } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { contextUsed } from "./progress.js";

/**
 * @typedef {Object} Actions what a turn's buttons do
 * @property {function(): void} retry
 * @property {function(): void} edit
 * @property {function(): void} giveKey
 */

/** Shows one turn. */
class TurnView {
  constructor(turn, talk) {
    this.turn = turn;
    this.talk = talk;
    this.single = null;
    const { actions } = talk;
    const answer = () => this.turn.answer.text;
    this.question = make("div", { class: "question", role: "group", "aria-label": "Your message" }, turn.question);
    this.waiting = make("p", { class: "waiting" }, "Waiting for the first words …");
    this.text = make("div", { class: "text" });
    this.marks = make("div", { hidden: true });
    this.note = make("div", { class: "note", hidden: true });
    this.figures = make("span", { class: "figures" });
    this.copy = copyButton("Copy the answer", answer);
    const edit = iconButton("edit", "Edit your message", actions.edit);
    this.retry = iconButton("retry", "Answer again", actions.retry, "only-last");
    this.below = make("div", { class: "below not-writing" }, this.copy, this.retry, this.figures);
    const tools = make("div", { class: "question-tools only-last not-writing" }, edit);
    const parts = [this.waiting, this.text, this.marks, this.note, this.below];
    const shown = make("div", { class: "answer", role: "group", "aria-label": "Answer" }, ...parts);
    this.element = make("article", { class: "turn" }, this.question, tools, shown);
    this.update();
  }

  /** Shows what the answer is now. */
  update() {
    const { answer } = this.turn;
    const writing = answer.state === "writing";
    this.element.classList.toggle("writing", writing);
    this.waiting.hidden = !writing || answer.text !== "";
    this.copy.hidden = answer.text === "";
    this.retry.hidden = answer.failure?.retry === true; // there is a button for that then
    this.#showText(answer);
    this.#showMarks(answer);
    this.#showNote(answer);
    this.figures.textContent = writing ? "" : figures(answer.told);
  }

  #showText({ text, runs }) {
    const coloured = this.talk.coloured;
    if (this.text.classList.toggle("drafted", coloured) !== this.wasColoured) {
      this.text.replaceChildren();
      this.text.keys = [];
      this.wasColoured = coloured;
    } else if (text === this.shownText && !coloured) return;
    this.shownText = text;
    if (coloured) showRuns(this.text, runs, this.single);
    else showMarkdown(this.text, text);
  }

  #showMarks({ told, text }) {
    this.marks.hidden = !this.talk.coloured || !told || text === "";
    if (this.marks.hidden) return;
    const key = JSON.stringify([told.sources, this.single]);
    if (key === this.marksKey) return; // a button that has the focus stays
    this.marksKey = key;
    this.marks.replaceChildren(legend(told.sources, (source) => this.#single(source), this.single));
  }

  /** Shows in full strength what one source has drafted, or everything again. */
  #single(source) {
    const focused = [...this.marks.querySelectorAll("button")].indexOf(document.activeElement);
    this.single = this.single === source ? null : source;
    this.update();
    this.marks.querySelectorAll("button")[focused]?.focus();
  }

  #showNote({ state, told, failure }) {
    const found = failure ?? (state === "writing" ? null : remark(state, told));
    const key = JSON.stringify(found);
    if (key === this.noteKey) return;
    this.noteKey = key;
    this.note.hidden = found === null;
    this.note.classList.toggle("failure", failure !== null);
    if (found === null) return;
    const { retry, giveKey } = this.talk.actions;
    this.note.replaceChildren(make("span", {}, found.text));
    if (found.key) this.note.append(plainButton("Enter the key", giveKey));
    if (found.retry) this.note.append(plainButton("Try again", retry));
  }
}

/** Shows all turns. */
export class Talk {
  /**
   * @param {Element} root
   * @param {Actions} actions
   */
  constructor(root, actions) {
    this.root = root;
    this.actions = actions;
    this.coloured = false;
    this.views = new Map();
  }

  /** Shows these turns and no others. */
  show(turns) {
    this.views = new Map(turns.map((turn) => [turn, this.views.get(turn) ?? new TurnView(turn, this)]));
    this.root.replaceChildren(...[...this.views.values()].map((view) => view.element));
  }

  update(turn) {
    this.views.get(turn)?.update();
  }

  /** Shows each token in the colour of who drafted it, or answers as they are meant to look. */
  colour(coloured) {
    this.coloured = coloured;
    for (const view of this.views.values()) view.update();
  }
}

export function plainButton(label, press) {
  return make("button", { type: "button", class: "plain", click: press }, label);
}

/** An answer's figures in a line. */
function figures(told) {
  if (!told?.tokens) return "";
  const parts = [`${told.tokens} tokens`];
  if (told.rate) parts.push(`${told.rate.toFixed(1)} per second`);
  if (told.drafted) parts.push(`${Math.round((100 * told.accepted) / told.drafted)}% of drafts accepted`);
  return parts.join(" · ");
}

/** What is to be said of an answer that did not come to an end by itself. */
function remark(state, told) {
  if (state === "stopped") return { text: "Stopped." };
  if (told?.reason !== "length") return null;
  const used = contextUsed(told);
  const { contextSize } = told;
  if (contextSize !== null && used !== null && used >= contextSize - 1) {
    return { text: `The context is full: ${contextSize} tokens. A new chat starts with an empty one.` };
  }
  const whose = told.maxTokens !== null ? "the most that your settings allow" : "the most that this server writes";
  return { text: `Cut off after ${told.tokens} tokens, ${whose}.` };
}
