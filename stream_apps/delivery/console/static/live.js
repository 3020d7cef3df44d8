// The WebSocket (docs/live.md): stays connected, resumes by cursor, renews its token in place.

import { SignedOut, now } from "./api.js";

const FIRST_DELAY = 250;
const LONGEST_DELAY = 10_000;
const RENEW_BEFORE = 60_000;

export class Live {
  // `tell` has: event(event, receivedAt, isBacklog), gap(frame), link(state, sentence), subscribed(isResumed), signedOut().
  constructor(api, tell) {
    this.api = api;
    this.tell = tell;
    this.cursor = null;
    this.socket = null;
    this.isClosed = false;
    this.delay = FIRST_DELAY;
    this.timers = {};
  }

  start() {
    addEventListener("online", this.#hurry);
    addEventListener("offline", this.#lose);
    this.#connect();
  }

  close() {
    this.isClosed = true;
    removeEventListener("online", this.#hurry);
    removeEventListener("offline", this.#lose);
    this.#stopTimers();
    this.socket?.close();
  }

  say(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  #hurry = () => {
    if (this.timers.reconnect === undefined) return;
    clearTimeout(this.timers.reconnect);
    delete this.timers.reconnect;
    this.#connect();
  };

  #lose = () => this.#drop(this.socket);

  async #connect() {
    if (this.isClosed) return;
    this.tell.link("connecting", "Connecting …");
    try {
      if (this.api.token === null || this.api.tokenLeft < RENEW_BEFORE) await this.api.renew();
    } catch (error) {
      if (error instanceof SignedOut) this.tell.signedOut();
      else this.#retry();
      return;
    }
    if (this.isClosed) return;
    const address = new URL("/v1/ws", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address, ["chat4all.v1"]);
    this.socket = socket;
    this.heartbeat = 15_000;
    socket.onopen = () => this.say({ type: "authenticate", token: this.api.token });
    socket.onmessage = ({ data }) => {
      const receivedAt = now();
      this.#watch(socket);
      for (const line of data.split("\n")) this.#take(JSON.parse(line), receivedAt);
    };
    socket.onclose = () => this.#drop(socket);
    this.#watch(socket);
  }

  #take(frame, receivedAt) {
    if (frame.cursor) this.cursor = frame.cursor;
    switch (frame.type) {
      case "welcome":
        this.heartbeat = frame.heartbeat_seconds * 1000;
        this.#renewInTime();
        this.say({ type: "subscribe", ...(this.cursor ? { cursor: this.cursor } : {}) });
        break;
      case "subscribed":
        this.delay = FIRST_DELAY;
        this.subscribedAt = receivedAt;
        this.tell.link("online", "Connected.");
        this.tell.subscribed(frame.resumed);
        break;
      case "authenticated":
        this.#renewInTime();
        break;
      case "event":
        this.tell.event(frame.event, receivedAt, this.subscribedAt);
        break;
      case "gap":
        this.tell.gap(frame);
        break;
      case "goodbye":
        this.comeBackIn = frame.reconnect_in_ms;
        if (frame.reason === "token_expired" || frame.reason === "unauthenticated") this.mustRenew = true;
        break;
    }
  }

  #renewInTime() {
    clearTimeout(this.timers.renew);
    this.timers.renew = setTimeout(async () => {
      try {
        await this.api.renew();
        this.say({ type: "authenticate", token: this.api.token });
      } catch (error) {
        if (error instanceof SignedOut) this.tell.signedOut();
        else this.timers.renew = setTimeout(() => this.#renewInTime(), 5_000);
      }
    }, Math.max(1_000, this.api.tokenLeft - RENEW_BEFORE));
  }

  // A connection that says nothing for longer than its heartbeat is dead, whatever the browser believes.
  #watch(socket) {
    clearTimeout(this.timers.watch);
    this.timers.watch = setTimeout(() => this.#drop(socket), this.heartbeat * 2 + 2_000);
  }

  #drop(socket) {
    if (socket === null || socket !== this.socket || this.isClosed) return;
    this.socket = null;
    socket.onmessage = socket.onclose = socket.onopen = null;
    socket.close();
    this.#stopTimers();
    this.#retry();
  }

  #retry() {
    const wait = this.comeBackIn ?? this.delay * (0.5 + Math.random());
    this.comeBackIn = null;
    this.delay = Math.min(this.delay * 2, LONGEST_DELAY);
    this.tell.link("offline", navigator.onLine ? "Connection lost; trying again …" : "You are offline.");
    this.timers.reconnect = setTimeout(async () => {
      delete this.timers.reconnect;
      if (this.mustRenew) {
        this.mustRenew = false;
        try {
          await this.api.renew();
        } catch (error) {
          if (error instanceof SignedOut) return this.tell.signedOut();
        }
      }
      this.#connect();
    }, wait);
  }

  #stopTimers() {
    for (const timer of Object.values(this.timers)) clearTimeout(timer);
    this.timers = {};
  }
}
