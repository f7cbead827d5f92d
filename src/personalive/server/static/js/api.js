// HTTP with the server: one request function, and one kind of error that carries the server's own words.

/** A refusal by the server, or its silence (kind "unreachable"). */
export class ApiError extends Error {
  /**
   * @param {number} status HTTP status, 0 when nothing was answered
   * @param {{kind: string, message: string, retry_after_s?: number, ticket?: string, position?: number}} error
   */
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.kind = error.kind;
    this.retryAfterS = error.retry_after_s ?? null;
    this.ticket = error.ticket ?? null;
    this.position = error.position ?? null;
  }
}

const NO_SUCH_ADDRESS = [404, 405];

async function refusal(response) {
  const body = await response.json().catch(() => null);
  // The framework's own words for an address that is not there; a session that has ended is told in a sentence.
  if (NO_SUCH_ADDRESS.includes(response.status) && ["Not Found", "Method Not Allowed"].includes(body?.error?.message)) {
    return new ApiError(response.status, { ...body.error, message: "This server cannot do that." });
  }
  const error = body?.error ?? { kind: "internal", message: `The server answered ${response.status}.` };
  return new ApiError(response.status, error);
}

/** Requests with the server's token; `withKey` gives one for a session's own addresses. */
export class Api {
  /**
   * @param {() => string|null} bearer what to authorise with
   * @param {(() => Promise<void>)|null} onWrongToken asks the person for another token, then the request is tried again
   */
  constructor(bearer, onWrongToken = null) {
    this.bearer = bearer;
    this.onWrongToken = onWrongToken;
  }

  /** The same with a session's key. */
  withKey(key) {
    return new Api(() => key);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{json?: any, body?: BodyInit, type?: string, keepalive?: boolean, signal?: AbortSignal}} [options]
   * @returns {Promise<Response>}
   * @throws {ApiError}
   */
  async request(method, path, options = {}) {
    const { json, type, ...rest } = options;
    const headers = {};
    const bearer = this.bearer();
    if (bearer) headers.Authorization = `Bearer ${bearer}`;
    if (json !== undefined) { rest.body = JSON.stringify(json); headers["Content-Type"] = "application/json"; }
    if (type) headers["Content-Type"] = type;
    const response = await fetch(path, { method, headers, cache: "no-store", ...rest }).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, { kind: "unreachable", message: "The server does not answer. Is it still running?" });
    });
    if (response.ok) return response;
    const error = await refusal(response);
    if (error.kind !== "wrong_token" || !this.onWrongToken) throw error;
    await this.onWrongToken();
    return this.request(method, path, options);
  }

  /** The answer's JSON. */
  async json(method, path, options) {
    return (await this.request(method, path, options)).json();
  }

  /** The answer's bytes. */
  async blob(path) {
    return (await this.request("GET", path)).blob();
  }
}
