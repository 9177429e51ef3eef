// Begins here: brings the page's parts together.

import { models } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { iconButton, make } from "./dom.js";
import { explain } from "./failures.js";
import { Settings } from "./settings.js";
import { Speaker } from "./speaker.js";
import { SpeedPanel } from "./speed.js";
import { keep, recall } from "./storage.js";
import { plainButton, Talk } from "./talk.js";

const NEAR = 96; // pixels from the end at which the view follows what is written

const at = (id) => document.getElementById(id);
const scroller = at("talk");
const conversation = new Conversation();
const settings = new Settings(at("settings"), settingsChanged);
const talk = new Talk(at("turns"), { retry, edit, giveKey: () => settings.open("key") });
const speed = new SpeedPanel(at("speed"));
const chat = new Chat({ conversation, settings, talk, speed, speaker: new Speaker(at("spoken")), model, shown });
const composer = new Composer({
  form: at("composer"),
  text: at("prompt"),
  sending: at("send"),
  stopping: at("stop"),
  editing: at("editing"),
  leaving: at("leave-editing"),
  send,
  stop: () => chat.stop(),
});
let served = [];
let following = true;

// Sending, again, new

function send(question, editing) {
  notify(null);
  following = true;
  if (editing) chat.again(question);
  else chat.send(question);
}

function retry() {
  following = true;
  chat.again();
}

function edit() {
  composer.edit(conversation.last.question);
}

function restart() {
  chat.stop();
  composer.leaveEditing();
  const before = conversation.clear();
  chat.show();
  composer.focus();
  if (!before.length) return;
  notify("The conversation is gone.", plainButton("Bring it back", () => {
    conversation.restore(before);
    chat.show();
    notify(null);
  }));
}

/** What else is to be brought in line with what is shown. */
function shown({ toEnd = false } = {}) {
  at("welcome").hidden = conversation.turns.length > 0;
  at("turns").hidden = conversation.turns.length === 0;
  composer.writing(chat.writing);
  if (toEnd || following) scroller.scrollTop = scroller.scrollHeight;
  at("to-end").hidden = following;
}

// Models and settings

async function findModels() {
  try {
    served = await models(settings.key);
  } catch (error) {
    const { text, key } = explain(error);
    notify(text, key ? plainButton("Enter the key", () => settings.open("key")) : plainButton("Try again", findModels));
    return;
  }
  notify(null);
  const select = at("model");
  select.replaceChildren(...served.map(({ id }) => make("option", { value: id }, id)));
  const chosen = recall("model", null);
  if (served.some(({ id }) => id === chosen)) select.value = chosen;
  const several = served.length > 1;
  select.hidden = !several;
  at("model-name").hidden = several;
  showModel();
}

/** The model that is asked; undefined before they are known. */
function model() {
  return served.find(({ id }) => id === at("model").value);
}

function showModel() {
  const name = at("model").value;
  at("model-name").textContent = at("welcome-model").textContent = name;
  document.title = `${name} · edge-conflayers`;
}

function settingsChanged() {
  showSettings();
  if (!served.length) findModels();
  if (conversation.last?.answer.failure?.key && settings.key) retry();
}

function showSettings() {
  const n = settings.count;
  at("open-settings").classList.toggle("changed", n > 0);
  at("open-settings").setAttribute("aria-label", n ? `Settings, ${n} changed` : "Settings");
}

/** A line above the composer; null takes it away. */
function notify(text, button) {
  at("notice").hidden = text === null;
  at("notice").replaceChildren();
  if (text === null) return;
  at("notice").append(make("span", {}, text), button, iconButton("close", "Dismiss", () => notify(null)));
}

function colour(coloured) {
  at("colours").setAttribute("aria-pressed", String(coloured));
  keep("coloured", coloured || undefined);
  talk.colour(coloured);
  shown();
}

at("colours").addEventListener("click", () => colour(!talk.coloured));
at("open-settings").addEventListener("click", () => settings.open());
at("new").addEventListener("click", restart);
at("model").addEventListener("change", () => {
  keep("model", at("model").value);
  showModel();
});
for (const button of document.querySelectorAll(".suggestions button")) {
  button.addEventListener("click", () => send(button.textContent, false));
}
scroller.addEventListener("scroll", () => {
  following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
  at("to-end").hidden = following;
});
at("to-end").addEventListener("click", () => {
  following = true;
  shown({ toEnd: true });
});
// Some browsers break requests off, as if the connection were lost, before they tell that the page is left.
for (const leaving of ["beforeunload", "pagehide"]) {
  addEventListener(leaving, () => {
    chat.stop();
    conversation.save();
  });
}

showSettings();
colour(recall("coloured", false));
chat.show();
findModels();
