// The conversation: turns of a question and its answer, kept in this browser.

import { keep, recall } from "./storage.js";

/**
 * @typedef {Object} Answer
 * @property {"writing"|"done"|"stopped"|"failed"} state
 * @property {string} text
 * @property {Array<[string, string]>} runs the text in parts: who drafted it, and the part
 * @property {?Object} told its figures (progress.js)
 * @property {?Object} failure what went wrong (failures.js)
 */

export class Conversation {
  constructor() {
    /** @type {Array<{question: string, answer: Answer}>} */
    this.turns = recall("conversation", []);
    for (const { answer } of this.turns) if (answer.state === "writing") answer.state = "stopped";
  }

  get last() {
    return this.turns.at(-1);
  }

  /** Adds a turn that is to be answered. */
  add(question) {
    const turn = { question, answer: emptyAnswer() };
    this.turns.push(turn);
    return turn;
  }

  /** Takes back the last turn's answer, and puts another question in place if one is given. */
  again(question = this.last.question) {
    this.turns.pop();
    return this.add(question);
  }

  /** Takes back all turns; returns them. */
  clear() {
    const turns = this.turns;
    this.restore([]);
    return turns;
  }

  restore(turns) {
    this.turns = turns;
    this.save();
  }

  save() {
    keep("conversation", this.turns.length ? this.turns : undefined);
  }

  /**
   * The messages that the last turn is to be answered after. Turns without an answer are left out: many templates
   * want roles that alternate.
   */
  messages(system) {
    const found = system ? [{ role: "system", content: system }] : [];
    for (const { question, answer } of this.turns) {
      if (answer.text) found.push({ role: "user", content: question }, { role: "assistant", content: answer.text });
    }
    return [...found, { role: "user", content: this.last.question }];
  }
}

function emptyAnswer() {
  return { state: "writing", text: "", runs: [], told: null, failure: null };
}
