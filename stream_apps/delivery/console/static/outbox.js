// What waits to be sent: one message of a conversation at a time, in order, under one id until it is accepted.

import { newId } from "./api.js";

const FIRST_DELAY = 500;
const LONGEST_DELAY = 8_000;

export class Outgoing {
  // `read()` gives the state, `dispatch(action)` changes it.
  constructor(api, read, dispatch) {
    this.api = api;
    this.read = read;
    this.dispatch = dispatch;
    this.busy = new Set();
    this.wake = new Map();
    this.isClosed = false;
  }

  close() {
    this.isClosed = true;
    this.hurry();
  }

  add(conversation_id, text, reply_to) {
    const message = { message_id: newId(), text, reply_to, state: "waiting", problem: null };
    this.dispatch({ type: "outgoingAdded", conversation_id, message });
    this.#work(conversation_id);
  }

  again(conversation_id, message_id) {
    this.dispatch({ type: "outgoingChanged", conversation_id, message_id, changes: { state: "waiting", problem: null } });
    this.#work(conversation_id);
  }

  // Tries now what waits for its next try: the connection is back.
  hurry() {
    for (const wake of this.wake.values()) wake();
  }

  #next(conversation_id) {
    return this.read().conversations[conversation_id]?.outgoing.find((each) => each.state === "waiting");
  }

  async #work(conversation_id) {
    if (this.busy.has(conversation_id)) return;
    this.busy.add(conversation_id);
    let delay = FIRST_DELAY;
    for (let message; !this.isClosed && (message = this.#next(conversation_id)); ) {
      const { message_id, text, reply_to } = message;
      const fields = { message_id, body: { type: "text", text }, ...(reply_to ? { reply_to } : {}) };
      try {
        const accepted = await this.api.send(conversation_id, fields);
        delay = FIRST_DELAY;
        if (this.isClosed) break;
        const settled = { ...fields, ...accepted, type: "MessageSent", actor_id: this.read().me.user_id };
        this.dispatch({ type: "accepted", conversation_id, message: settled });
      } catch (error) {
        if (this.isClosed) break;
        if (!error.mayPass) {
          const changes = { state: "failed", problem: error.message };
          this.dispatch({ type: "outgoingChanged", conversation_id, message_id, changes });
          continue;
        }
        this.dispatch({ type: "outgoingChanged", conversation_id, message_id, changes: { problem: "Waiting to be sent …" } });
        await this.#pause(conversation_id, error.retryAfter ? error.retryAfter * 1000 : delay * (0.5 + Math.random()));
        delay = Math.min(delay * 2, LONGEST_DELAY);
      }
    }
    this.busy.delete(conversation_id);
  }

  #pause(conversation_id, milliseconds) {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.wake.delete(conversation_id);
        resolve();
      };
      const timer = setTimeout(wake, milliseconds);
      this.wake.set(conversation_id, wake);
    });
  }
}
