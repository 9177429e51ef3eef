// Asks the server that the page came from. Addresses are relative: a proxy may put a path before them.

/** A request that failed. */
export class RequestError extends Error {
  /**
   * @param {string} message the server's, in one line
   * @param {number} status of HTTP; 0 if the connection was lost, 500 for an error within a stream
   * @param {?string} code the server's, for programs
   */
  constructor(message, status, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The models that are served. */
export async function models(key) {
  const response = await ask("v1/models", key);
  return (await response.json()).data;
}

/**
 * Yields the chunks of an answer as they come. Aborting ends the text on the server as well.
 *
 * @param {Object} body of /v1/chat/completions
 * @param {string} key the API key; "" for none
 * @param {AbortSignal} signal
 */
export async function* answer(body, key, signal) {
  const response = await ask("v1/chat/completions", key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new RequestError(chunk.error.message, statusOf(chunk.error), chunk.error.code);
    yield chunk;
  }
  throw new RequestError("the answer broke off", 0);
}

async function ask(address, key, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(address, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new RequestError(error.message, 0);
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new RequestError(error?.message ?? response.statusText, response.status, error?.code);
}

/** Yields the data of server-sent events. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (unread + value).split(/\r?\n\r?\n/);
      unread = parts.pop();
      for (const part of parts) {
        const lines = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new RequestError(error.message, 0);
  } finally {
    reader.cancel().catch(() => {});
  }
}

// An error object within a stream has no status of its own.
function statusOf(error) {
  if (error.code === "server_ending") return 503;
  return error.type === "server_error" ? 500 : 400;
}
