// Shows the Markdown of ordinary answers: headings, lists, quotes, code, tables, emphasis, links. Everything else
// stays as it is written. Elements are made one by one and texts put into them, so that no text can become markup.

import { copyButton, make } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}(?!.*`)|~{3,})[ \t]*([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(\S.*)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,8})([-*+]|\d{1,9}[.)])[ \t]+(?=\S)/;
const TABLE = /^\s*\|.*\|\s*$/;
const DELIMITER = /^\s*\|(?:[ \t]*:?-+:?[ \t]*\|)+\s*$/; // between a table's head and its body
const DEEPEST = 6; // of what is nested; deeper than that it stays as it is written
// Bounded, so that a text of nothing but asterisks takes no longer than any other.
const INLINE = new RegExp(
  [
    /(`{1,3})(?!`)([^\n]{1,400}?)(?<!`)\1(?!`)/,
    /(\*\*|__)(?=\S)([^\n]{0,400}?\S)\3/,
    /(?<![\w*])\*(?=[^\s*])([^\n*]{0,400}?[^\s*])\*(?![\w*])/,
    /(?<!\w)_(?=[^\s_])([^\n_]{1,400}?)_(?!\w)/,
    /\[([^\]\n]{1,200})\]\((https?:\/\/[^\s)]{1,1000})\)/,
    /\\([*_`#])/,
  ].map((each) => each.source).join("|"),
);

/**
 * Shows a text. Blocks that are shown already and have not changed stay, so that a selection in them does, too.
 *
 * @param {Element} element
 * @param {string} text
 */
export function showMarkdown(element, text) {
  const found = blocks(text.split("\n"));
  const keys = found.map((block) => block.kind + block.lines.join("\n"));
  const shown = element.keys ?? [];
  let same = 0;
  while (same < keys.length && keys[same] === shown[same]) same++;
  if (same < keys.length && grows(found[same], shown[same])) {
    element.children[same].querySelector("code").textContent = codeOf(found[same]);
    same++;
  }
  while (element.children.length > same) element.lastChild.remove();
  for (const block of found.slice(same)) element.append(elementOf(block, 0));
  element.keys = keys;
}

/** Whether a block is the code that is shown so far and more of it: its element stays, and how far it was scrolled. */
function grows(block, shown) {
  return block.kind === "code" && shown?.startsWith(`code${block.lines[0]}\n`);
}

/** Cuts lines into blocks: {kind, lines}. */
function blocks(lines) {
  const found = [];
  let at = 0;
  const take = (kind, more) => {
    const from = at++;
    while (at < lines.length && more(lines[at])) at++;
    found.push({ kind, lines: lines.slice(from, at) });
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    if (!line.trim()) at++;
    else if (fence) {
      const end = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
      take("code", (next) => !end.test(next));
      if (at < lines.length) at++; // the closing fence
    } else if (HEADING.test(line)) take("heading", () => false);
    else if (RULE.test(line)) take("rule", () => false);
    else if (QUOTE.test(line)) take("quote", (next) => QUOTE.test(next));
    else if (ITEM.test(line)) {
      const numbered = isNumbered(line);
      take("list", (next) => {
        if (!next.trim()) return listGoesOn(lines, at);
        return isNested(next) || (ITEM.test(next) && isNumbered(next) === numbered);
      });
    } else if (TABLE.test(line)) take("table", (next) => TABLE.test(next));
    else take("text", (next) => next.trim() && !beginsBlock(next));
  }
  return found;
}

function beginsBlock(line) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((each) => each.test(line));
}

const isNested = (line) => /^(?: {2,}|\t)\S/.test(line);
const isNumbered = (line) => /^ *\d/.test(line);

/** Whether a list goes on after an empty line, or two. */
function listGoesOn(lines, at) {
  const next = lines.slice(at, at + 3).find((line) => line.trim());
  return next !== undefined && (ITEM.test(next) || isNested(next));
}

function elementOf({ kind, lines }, depth) {
  switch (kind) {
    case "code":
      return code({ kind, lines });
    case "heading": {
      const [, marks, title] = HEADING.exec(lines[0]);
      return inline(make(`h${Math.min(marks.length + 2, 5)}`), title.trim());
    }
    case "rule":
      return make("hr");
    case "table":
      return DELIMITER.test(lines[1] ?? "") ? table(lines) : make("pre", { class: "table" }, lines.join("\n"));
    case "quote":
      return nested(make("blockquote"), lines.map((line) => line.replace(QUOTE, "")), depth);
    case "list":
      return list(lines, depth);
    default:
      return inline(make("p"), lines.join("\n"));
  }
}

function nested(element, lines, depth) {
  if (depth >= DEEPEST) return inline(element, lines.join("\n"));
  element.append(...blocks(lines).map((block) => elementOf(block, depth + 1)));
  return element;
}

function list(lines, depth) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const ordered = /\d/.test(mark);
  const element = make(ordered ? "ol" : "ul", ordered ? { start: parseInt(mark, 10) } : {});
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length < indent.length + 2) items.push([line.slice(item[0].length)]);
    else items.at(-1).push(line.replace(new RegExp(`^\\s{0,${indent.length + mark.length + 1}}`), ""));
  }
  for (const item of items) {
    const simple = item.length === 1 && !beginsBlock(item[0]);
    element.append(simple ? inline(make("li"), item[0]) : nested(make("li"), item, depth));
  }
  return element;
}

function table([head, , ...lines]) {
  const cells = (line) => line.trim().slice(1, -1).split("|");
  const row = (tag, line) => make("tr", {}, ...cells(line).map((cell) => inline(make(tag), cell.trim())));
  const body = make("tbody", {}, ...lines.map((line) => row("td", line)));
  return make("div", { class: "table", tabindex: "0" }, make("table", {}, make("thead", {}, row("th", head)), body));
}

const codeOf = (block) => block.lines.slice(1).join("\n");

function code(block) {
  const text = make("code", {}, codeOf(block));
  const language = make("span", {}, FENCE.exec(block.lines[0])[2]);
  const bar = make("div", { class: "bar" }, language, copyButton("Copy this code", () => text.textContent));
  return make("div", { class: "code" }, bar, make("pre", { tabindex: "0" }, text));
}

/** Puts a text into an element, its emphasis, code and links as elements. */
function inline(element, text) {
  let rest = text;
  for (let match; (match = INLINE.exec(rest)); rest = rest.slice(match.index + match[0].length)) {
    const [, , codeText, , bold, star, underscore, label, address, escaped] = match;
    element.append(rest.slice(0, match.index));
    if (codeText !== undefined) element.append(make("code", {}, codeText));
    else if (bold !== undefined) element.append(inline(make("strong"), bold));
    else if (label !== undefined) {
      element.append(make("a", { href: address, target: "_blank", rel: "noopener noreferrer", title: address }, label));
    } else if (escaped !== undefined) element.append(escaped);
    else element.append(inline(make("em"), star ?? underscore));
  }
  element.append(rest);
  return element;
}
