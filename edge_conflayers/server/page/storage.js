// What this browser keeps for the page. Where storage is switched off or full, nothing is kept.

const PREFIX = "edge-conflayers.";

/** What was kept under this name; the fallback if nothing was, or what was cannot be read. */
export function recall(name, fallback, storage = "localStorage") {
  try {
    const text = window[storage].getItem(PREFIX + name);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

/** Keeps a value; undefined removes it. */
export function keep(name, value, storage = "localStorage") {
  try {
    if (value === undefined) window[storage].removeItem(PREFIX + name);
    else window[storage].setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // The page goes on without.
  }
}
