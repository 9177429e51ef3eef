// Asks for answers and shows them as they come.

import { answer as ask } from "./api.js";
import { explain } from "./failures.js";
import { Progress } from "./progress.js";

// Drawing takes time that the model on this machine could use. None of these is tuned.
const TEXT_EVERY = 100; // milliseconds
const SPEED_EVERY = 3; // of those
const SAVED_EVERY = 20;

export class Chat {
  /**
   * @param {Object} parts
   * @param {import("./conversation.js").Conversation} parts.conversation
   * @param {import("./settings.js").Settings} parts.settings
   * @param {import("./talk.js").Talk} parts.talk
   * @param {import("./speed.js").SpeedPanel} parts.speed
   * @param {import("./speaker.js").Speaker} parts.speaker
   * @param {function(): ?Object} parts.model the model that is asked, as /v1/models has it
   * @param {function(): void} parts.shown called after something is shown
   */
  constructor(parts) {
    Object.assign(this, parts);
    this.aborting = null;
  }

  get writing() {
    return this.aborting !== null;
  }

  /** Asks a question. */
  send(question) {
    return this.#write(this.conversation.add(question));
  }

  /** Asks the last one again, or another one in its place. */
  again(question = undefined) {
    this.stop();
    return this.#write(this.conversation.again(question));
  }

  /** Ends the answer, here and on the server. */
  stop() {
    this.aborting?.abort();
    this.aborting = null;
  }

  /** Shows everything as it is. */
  show() {
    this.talk.show(this.conversation.turns);
    this.speed.show(this.conversation.last?.answer.told ?? null);
    this.shown();
  }

  async #write(turn) {
    const { answer } = turn;
    const model = this.model();
    const aborting = (this.aborting = new AbortController());
    const body = {
      ...this.settings.request,
      ...(model ? { model: model.id } : {}),
      messages: this.conversation.messages(this.settings.system),
    };
    const progress = new Progress(answer, this.settings.maxTokens, model?.meta?.n_ctx ?? null);
    this.talk.show(this.conversation.turns);
    this.speed.show(progress.summary());
    this.speaker.begin();
    let ticks = 0;
    const ticking = setInterval(() => {
      if (turn !== this.conversation.last) return; // taken back; it ends in a moment
      answer.told = progress.summary();
      this.talk.update(turn);
      if (++ticks % SPEED_EVERY === 0) this.speed.show(answer.told, progress.rate(performance.now()));
      if (ticks % SAVED_EVERY === 0) this.conversation.save();
      this.speaker.follow(answer.text, false);
      this.shown();
    }, TEXT_EVERY);
    this.conversation.save();
    this.shown({ toEnd: true });
    try {
      for await (const chunk of ask(body, this.settings.key, aborting.signal)) {
        progress.add(chunk, performance.now());
      }
      answer.state = "done";
    } catch (error) {
      if (aborting.signal.aborted) answer.state = "stopped";
      else Object.assign(answer, { state: "failed", failure: explain(error) });
    } finally {
      clearInterval(ticking);
      if (this.aborting === aborting) this.aborting = null;
      progress.told.over = true;
      answer.told = progress.summary();
      this.conversation.save();
      this.#end(turn);
    }
  }

  /** Shows an answer that is over; it may be taken back by then. */
  #end(turn) {
    this.talk.update(turn);
    if (turn !== this.conversation.last) return;
    this.speed.show(turn.answer.told);
    this.speaker.follow(turn.answer.text, true);
    if (turn.answer.failure) this.speaker.say(turn.answer.failure.text);
    this.shown();
  }
}
