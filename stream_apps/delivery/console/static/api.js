// The HTTP of the console: tokens and their renewal, and one function per call. Addresses are relative: one origin.

const REFRESH_KEY = "chat4all.refresh";
const CLIENT_ID = "chat4all";

export class Refused extends Error {
  // A problem document, or what OAuth answers: `status`, a sentence, and how long to wait before another try.
  constructor(status, sentence, retryAfter = null) {
    super(sentence);
    this.status = status;
    this.retryAfter = retryAfter;
  }
  get mayPass() {
    return this.status === 429 || this.status >= 500;
  }
}

export class Unreachable extends Error {
  constructor() {
    super("The server cannot be reached.");
  }
  get mayPass() {
    return true;
  }
}

export class SignedOut extends Error {
  constructor(sentence = "You have been signed out. Sign in again.") {
    super(sentence);
  }
  get mayPass() {
    return false;
  }
}

export function now() {
  return performance.timeOrigin + performance.now();
}

async function ask(method, path, { headers = {}, body } = {}) {
  let answer;
  let content;
  try {
    answer = await fetch(path, { method, headers, body, cache: "no-store", credentials: "omit", redirect: "error" });
    content = await answer.text();
  } catch {
    throw new Unreachable();
  }
  let parsed = {};
  try {
    parsed = content ? JSON.parse(content) : {};
  } catch {
    if (answer.ok) throw new Unreachable(); // something between us and the server answered
  }
  if (answer.ok) return parsed;
  const sentence = parsed.detail ?? parsed.error_description ?? `The server answered ${answer.status}.`;
  throw new Refused(answer.status, sentence, Number(answer.headers.get("retry-after")) || null);
}

export class Api {
  #access = null;
  #expiresAt = 0;
  #renewing = null;

  constructor(storage) {
    this.storage = storage;
  }

  get token() {
    return this.#access;
  }

  // How long the token is still good, in milliseconds.
  get tokenLeft() {
    return this.#expiresAt - performance.now();
  }

  get canResume() {
    return this.storage.getItem(REFRESH_KEY) !== null;
  }

  async register(username, password, displayName) {
    const fields = { username, password, ...(displayName ? { display_name: displayName } : {}) };
    return ask("POST", "/v1/users", { headers: JSON_TYPE, body: JSON.stringify(fields) });
  }

  async signIn(username, password) {
    await this.#getTokens({ grant_type: "password", username, password });
  }

  // A fresh access token, once for all who need it. Raises SignedOut when there is no way to one.
  async renew() {
    this.#renewing ??= this.#renew().finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  async #renew() {
    const refresh = this.storage.getItem(REFRESH_KEY);
    if (refresh === null) throw new SignedOut();
    try {
      await this.#getTokens({ grant_type: "refresh_token", refresh_token: refresh });
    } catch (error) {
      if (!(error instanceof Refused) || error.mayPass) throw error;
      this.#forget();
      throw new SignedOut();
    }
  }

  async #getTokens(fields) {
    const asked = performance.now();
    const body = new URLSearchParams({ client_id: CLIENT_ID, ...fields });
    const answer = await ask("POST", "/oauth/token", { body });
    this.#access = answer.access_token;
    this.#expiresAt = asked + answer.expires_in * 1000;
    this.storage.setItem(REFRESH_KEY, answer.refresh_token);
  }

  async signOut() {
    const token = this.storage.getItem(REFRESH_KEY);
    this.#forget();
    if (token === null) return;
    await ask("POST", "/oauth/revoke", { body: new URLSearchParams({ client_id: CLIENT_ID, token }) });
  }

  #forget() {
    this.#access = null;
    this.#expiresAt = 0;
    this.storage.removeItem(REFRESH_KEY);
  }

  async call(method, path, content) {
    if (this.#access === null || this.tokenLeft < 5_000) await this.renew();
    for (let attempt = 0; ; attempt++) {
      const headers = { Authorization: `Bearer ${this.#access}`, ...(content ? JSON_TYPE : {}) };
      try {
        return await ask(method, path, { headers, body: content && JSON.stringify(content) });
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 401 || attempt) throw error;
        await this.renew();
      }
    }
  }

  profile = () => this.call("GET", "/v1/users/me");
  inbox = (cursor) => this.call("GET", `/v1/conversations?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
  conversation = (id) => this.call("GET", `/v1/conversations/${id}`);
  presence = (id) => this.call("GET", `/v1/conversations/${id}/presence`);
  messages = (id, before) => this.call("GET", `/v1/conversations/${id}/messages?limit=50${before ? `&before_seq=${before}` : ""}`);
  events = (id, after) => this.call("GET", `/v1/conversations/${id}/events?limit=200&after_seq=${after}`);
  hops = (id, message) => this.call("GET", `/v1/conversations/${id}/messages/${message}/hops`);
  parts = () => this.call("GET", "/v1/parts");
  create = (fields) => this.call("POST", "/v1/conversations", fields);
  send = (id, fields) => this.call("POST", `/v1/conversations/${id}/messages`, fields);
  edit = (id, message, text) => this.call("PATCH", `/v1/conversations/${id}/messages/${message}`, { body: { type: "text", text } });
  remove = (id, message) => this.call("DELETE", `/v1/conversations/${id}/messages/${message}`);
  receipt = (id, fields) => this.call("PUT", `/v1/conversations/${id}/receipt`, fields);

  async findUsers({ usernames = [], ids = [] }) {
    const query = new URLSearchParams([...usernames.map((each) => ["username", each]), ...ids.map((each) => ["user_id", each])]);
    return (await this.call("GET", `/v1/users?${query}`)).users;
  }
}

const JSON_TYPE = { "Content-Type": "application/json" };

// A random UUID. (crypto.randomUUID is only there on https and loopback.)
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const text = [...bytes].map((each) => each.toString(16).padStart(2, "0")).join("");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
