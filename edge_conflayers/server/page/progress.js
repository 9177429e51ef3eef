// An answer's figures while it is written: tokens, speed, and who drafted them.

const WINDOW = 1.5; // seconds that the speed of now looks back; not tuned
const MOST_BARS = 48;

/** Tokens over time, by who drafted them, in bars of equal width: each as many seconds as keep them few. */
export class Bars {
  constructor() {
    this.width = 0.5;
    this.bars = [];
  }

  add(seconds, drafter) {
    while (seconds / this.width >= MOST_BARS) this.#widen();
    const place = Math.floor(seconds / this.width);
    while (this.bars.length <= place) this.bars.push({});
    this.bars[place][drafter] = (this.bars[place][drafter] ?? 0) + 1;
  }

  #widen() {
    const before = this.bars;
    this.width *= 2;
    this.bars = [];
    for (let i = 0; i < before.length; i += 2) {
      const bar = { ...before[i] };
      for (const [drafter, n] of Object.entries(before[i + 1] ?? {})) bar[drafter] = (bar[drafter] ?? 0) + n;
      this.bars.push(bar);
    }
  }
}

export class Progress {
  /**
   * @param {import("./conversation.js").Answer} answer gets the text
   * @param {?number} maxTokens that were asked for
   * @param {?number} contextSize tokens of the model's context
   */
  constructor(answer, maxTokens, contextSize) {
    this.answer = answer;
    this.told = { tokens: 0, sources: {}, seconds: 0, maxTokens, contextSize, over: false };
    this.bars = new Bars();
    this.arrivals = [];
    this.first = null;
  }

  /**
   * @param {Object} chunk of a streamed answer
   * @param {number} now milliseconds
   */
  add(chunk, now) {
    const choice = chunk.choices[0];
    if (!choice) return;
    const { answer, told } = this;
    answer.text += choice.delta.content ?? "";
    const ours = chunk.edge_conflayers ?? {};
    for (const { text, source } of ours.pieces ?? []) {
      const last = answer.runs.at(-1);
      if (last?.[0] === source) last[1] += text;
      else answer.runs.push([source, text]);
      // Nearly always a token; where a character or a stop string was held back, the end sets it right.
      this.#count(source, now);
    }
    for (const name of ["rounds", "drafted", "accepted", "method", "seed"]) told[name] = ours[name] ?? told[name];
    if (choice.finish_reason !== null) this.#end(choice.finish_reason, ours, chunk.timings);
  }

  #count(source, now) {
    this.first ??= now;
    const { told } = this;
    told.tokens += 1;
    told.sources[source] = (told.sources[source] ?? 0) + 1;
    told.seconds = (now - this.first) / 1000;
    this.bars.add(told.seconds, source);
    this.arrivals.push(now);
  }

  #end(reason, ours, timings) {
    const { told } = this;
    told.reason = reason;
    told.over = true;
    if (ours.sources) told.sources = ours.sources;
    if (!timings) return;
    told.tokens = timings.predicted_n;
    told.rate = timings.predicted_per_second;
    told.prompt = { read: timings.prompt_n, cached: timings.cache_n, seconds: timings.prompt_ms / 1000 };
  }

  /** Tokens per second just now; null before that can be told. */
  rate(now) {
    if (this.first === null) return null;
    const from = now - WINDOW * 1000;
    while (this.arrivals.length && this.arrivals[0] < from) this.arrivals.shift();
    const seconds = Math.min(WINDOW, (now - this.first) / 1000);
    return seconds < 0.25 ? null : this.arrivals.length / seconds;
  }

  /** What is kept of an answer's figures. */
  summary() {
    const { told } = this;
    const rate = told.rate ?? (told.seconds > 0 ? (told.tokens - 1) / told.seconds : null);
    return { ...told, rate, width: this.bars.width, bars: this.bars.bars };
  }
}

/** How many tokens of the context an answer's conversation takes. */
export function contextUsed(told) {
  return told.prompt ? told.prompt.read + told.prompt.cached + told.tokens : null;
}
