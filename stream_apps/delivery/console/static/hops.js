// Times of messages: the hops of one, percentiles of many, and how far the own clock is from the server's. Pure.

export const MOMENTS = [
  ["accepted", "Accepted", "PostgreSQL gave it its seq"],
  ["committed", "Committed", "its transaction is on disk"],
  ["appended", "Appended", "Debezium read it, Kafka holds it"],
  ["applied", "Applied", "the timeline app put it into Redis"],
  ["received", "Received", "this browser got it"],
];

// Milliseconds since 1970 of an RFC 3339 text with microseconds; Date.parse alone would cut them off.
export function parseTime(text) {
  const match = /^(.*?)(\.\d+)?(Z|[+-]\d\d:\d\d)$/.exec(text ?? "");
  if (!match) return null;
  const whole = Date.parse(match[1] + match[3]);
  return Number.isNaN(whole) ? null : whole + Number(match[2] ?? 0) * 1000;
}

// The hops between the moments that are known: [{name, label, meaning, at, start, took}], milliseconds after accepted.
// Moments are noted by several clocks, Kafka's in whole milliseconds that are cut off: one that seems to be earlier than
// the one before it is taken for as early as that one, so that hops are never negative and add up to the total.
export function waterfall(hops, received_at, offset) {
  const known = {
    accepted: parseTime(hops.accepted_at),
    committed: parseTime(hops.committed_at),
    appended: parseTime(hops.appended_at),
    applied: parseTime(hops.applied_at),
    received: received_at === null ? null : received_at + offset,
  };
  const rows = [];
  let before = null;
  for (const [name, label, meaning] of MOMENTS) {
    const noted = known[name];
    if (noted === null) {
      rows.push({ name, label, meaning, at: null, start: null, took: null });
      continue;
    }
    const at = before === null ? 0 : Math.max(before, noted - known.accepted);
    rows.push({ name, label, meaning, at, start: before ?? 0, took: at - (before ?? 0) });
    before = at;
  }
  return { rows, total: before ?? 0 };
}

// By the nearest rank; null without samples.
export function percentile(samples, share) {
  if (!samples.length) return null;
  const sorted = [...samples].sort((one, other) => one - other);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

// The server's clock minus the own one, from when a question was asked, answered (by the server's clock) and its answer
// came: as in NTP, off by half of the way at the most. Of two estimates the one with the shorter way is better.
export function betterOffset(held, { asked_at, answered_at, came_at }) {
  const found = { offset: answered_at - (asked_at + came_at) / 2, error: (came_at - asked_at) / 2 };
  return held === null || found.error < held.error ? found : held;
}

export function formatMilliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}
