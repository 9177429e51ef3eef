// Makes elements. Text that is given becomes text and never markup.

/**
 * An element.
 *
 * @param {string} tag
 * @param {Object<string, string|boolean|Function>} attributes "class", "data-…", …; functions listen to the event of that name
 * @param {...(Node|string)} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** An SVG element. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A button that shows one of the icons in index.html and says what it does. */
export function iconButton(icon, label, press, name = "") {
  return make(
    "button",
    { type: "button", class: `quiet ${name}`.trim(), "aria-label": label, title: label, click: press },
    draw("svg", { "aria-hidden": "true" }, draw("use", { href: `#icon-${icon}` })),
  );
}

/** A button that copies a text and says that it has. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const done = await copy(text());
    const use = button.querySelector("use");
    use.setAttribute("href", done ? "#icon-done" : "#icon-close");
    button.title = done ? "Copied" : "This browser does not let it be copied";
    button.setAttribute("aria-label", button.title);
    setTimeout(() => {
      use.setAttribute("href", "#icon-copy");
      button.title = label;
      button.setAttribute("aria-label", label);
    }, 1500);
  });
  return button;
}

/** Copies a text; returns whether it could. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not where the page came without TLS from another machine; there is only the older way there.
    const area = make("textarea", { class: "unseen", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
