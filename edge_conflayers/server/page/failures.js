// What went wrong, in one line for a person, and what can be done about it.

/**
 * @param {Error} error
 * @returns {{text: string, key?: boolean, retry?: boolean}} "key" where an API key is to be given, "retry" where
 *     asking again can help
 */
export function explain(error) {
  const said = sentence(error.message);
  switch (error.status) {
    case 0:
      return { text: "The connection to the server was lost. Is it still running?", retry: true };
    case 401:
      return { text: "This server wants an API key, and has not been given a right one.", key: true };
    case 429:
      return { text: `The server is busy. ${said}`, retry: true };
    case 503:
      return { text: `The server is not there just now. ${said}`, retry: true };
    case 400:
      if (error.code === "context_length_exceeded")
        return { text: `This does not fit. ${said} A new chat starts with an empty context.` };
      return { text: said };
    default:
      return { text: error.status >= 500 ? `The server failed. ${said}` : said, retry: error.status >= 500 };
  }
}

function sentence(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
