// Asking the server. The token is in this tab's session storage, and in no address: the one it
// came with is removed at once.

const KEY = "hydra-edge token";

export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export function takeToken() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", location.pathname);
  setToken(decodeURIComponent(found[1]));
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;
export const setToken = (token) => sessionStorage.setItem(KEY, token.trim());
export const dropToken = () => sessionStorage.removeItem(KEY);

// Calls a route of the page's own; all it is told travels in the body.
export async function call(path, body = {}, signal = undefined) {
  let response;
  try {
    response = await fetch(`/api/${path}`, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        Authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ""}`,
      },
      body: JSON.stringify(body),
      credentials: "omit",
      redirect: "error",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is `hydra-edge serve` still running?");
  }
  const told = await response.json().catch(() => ({}));
  if (response.ok) return told;
  const message = told.error?.message ?? `The server answered with status ${response.status}.`;
  throw new Problem(message, response.status);
}
