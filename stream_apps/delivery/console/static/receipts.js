// Receipts: how far this user has received and read, told a moment later and only when it is news.

const DELAY = 400;

export class Receipts {
  constructor(api) {
    this.api = api;
    this.wanted = new Map(); // conversation_id -> {delivered_seq, read_seq}
    this.told = new Map();
    this.timer = null;
  }

  close() {
    clearTimeout(this.timer);
    this.wanted.clear();
  }

  advance(conversation_id, fields) {
    const held = this.wanted.get(conversation_id) ?? {};
    const told = this.told.get(conversation_id) ?? {};
    const next = { ...held };
    for (const [name, seq] of Object.entries(fields)) {
      if (seq > Math.max(held[name] ?? 0, told[name] ?? 0)) next[name] = seq;
    }
    if (!Object.keys(next).length) return;
    this.wanted.set(conversation_id, next);
    this.timer ??= setTimeout(() => this.#tell(), DELAY);
  }

  async #tell() {
    const wanted = [...this.wanted];
    this.wanted.clear();
    for (const [conversation_id, fields] of wanted) {
      try {
        await this.api.receipt(conversation_id, fields);
        this.told.set(conversation_id, { ...this.told.get(conversation_id), ...fields });
      } catch {
        // The next message, or the next look, tells more than this one would have.
      }
    }
    this.timer = this.wanted.size ? setTimeout(() => this.#tell(), DELAY) : null;
  }
}
