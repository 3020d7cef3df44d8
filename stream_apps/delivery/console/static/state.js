// What the console knows, and how it changes: pure functions from a state and an action to the next state. No I/O here.
// Every action may come twice and in any order: messages are kept by id, heads and receipts are maxima.

export const MAX_SAMPLES = 1000;

export function initialState() {
  return {
    me: null, // {user_id, username, display_name}
    users: {}, // user_id -> {username, display_name}
    conversations: {}, // conversation_id -> conversation, see newConversation
    selected: null, // conversation_id
    inspected: null, // message_id that the inside view shows
    replyTo: null, // message_id
    editing: null, // message_id
    link: { state: "offline", sentence: "Not connected." },
    online: {}, // user_id -> true
    samples: [], // milliseconds from accepted to received, of messages seen live
    parts: [],
    problem: null, // a sentence
  };
}

export function newConversation(id) {
  return {
    conversation_id: id,
    title: null,
    seq: 0, // how far it is known to have come
    left_seq: null,
    unread_count: 0,
    last_message: null,
    active_at: "",
    participants: [],
    receipts: {}, // user_id -> {delivered_seq, read_seq}
    messages: {}, // message_id -> message
    changes: {}, // message_id -> the latest MessageEdited or MessageDeleted that was told live
    outgoing: [], // {message_id, text, reply_to, state: "waiting" | "failed", problem, created_at}
    typing: {}, // user_id -> until (milliseconds)
    received: {}, // message_id -> when this browser got it (milliseconds since 1970, own clock)
    prev: null, // before_seq of the page before; null: nothing before
    isLoaded: false,
  };
}

export function reduce(state, action) {
  const handler = HANDLERS[action.type];
  return handler ? handler(state, action) : state;
}

const HANDLERS = {
  signedIn: (state, { user }) => withUsers({ ...state, me: user, problem: null }, [user]),
  signedOut: () => initialState(),
  usersFound: (state, { users }) => withUsers(state, users),
  linkChanged: (state, { link }) => ({ ...state, link }),
  problemTold: (state, { sentence }) => ({ ...state, problem: sentence }),
  partsSeen: (state, { parts }) => ({ ...state, parts }),
  inspected: (state, { message_id }) => ({ ...state, inspected: message_id }),
  replyChosen: (state, { message_id }) => ({ ...state, replyTo: message_id, editing: null }),
  editChosen: (state, { message_id }) => ({ ...state, editing: message_id, replyTo: null }),

  selected: (state, { conversation_id }) => ({
    ...state, selected: conversation_id, inspected: null, replyTo: null, editing: null,
  }),

  inboxRead: (state, { lines }) =>
    lines.reduce((next, line) => change(next, line.conversation_id, (held) => mergeLine(held, line)), state),

  conversationRead: (state, { conversation }) =>
    change(state, conversation.conversation_id, (held) => ({
      ...held,
      title: conversation.seq >= held.seq ? conversation.title : held.title,
      participants: conversation.seq >= held.seq ? conversation.participants : held.participants,
      receipts: conversation.receipts.reduce(raiseReceipt, held.receipts),
      seq: Math.max(held.seq, conversation.seq),
    })),

  pageRead: (state, { conversation_id, page, isOlder }) =>
    change(state, conversation_id, (held) => {
      const isFirst = !held.isLoaded;
      return {
        ...page.messages.reduce(addMessage, held),
        isLoaded: true,
        prev: isOlder || isFirst ? page.prev : held.prev,
      };
    }),

  eventTold: (state, { event, received_at }) => applyEvent(state, event, received_at),

  outgoingAdded: (state, { conversation_id, message }) =>
    change(state, conversation_id, (held) => ({ ...held, outgoing: [...held.outgoing, message] })),

  outgoingChanged: (state, { conversation_id, message_id, changes }) =>
    change(state, conversation_id, (held) => ({
      ...held,
      outgoing: held.outgoing.map((each) => (each.message_id === message_id ? { ...each, ...changes } : each)),
    })),

  outgoingDropped: (state, { conversation_id, message_id }) =>
    change(state, conversation_id, (held) => withoutOutgoing(held, message_id)),

  accepted: (state, { conversation_id, message }) =>
    change(state, conversation_id, (held) => addMessage(held, message)),

  presenceRead: (state, { conversation_id, online }) => {
    const held = state.conversations[conversation_id];
    const asked = held ? held.participants.map((each) => each.user_id) : [];
    const next = { ...state.online };
    for (const user_id of asked) delete next[user_id];
    for (const user_id of online) next[user_id] = true;
    return { ...state, online: next };
  },

  timePassed: (state, { now }) =>
    Object.values(state.conversations).reduce((next, held) => {
      const stale = Object.keys(held.typing).filter((user_id) => held.typing[user_id] <= now);
      return stale.length ? change(next, held.conversation_id, (each) => without(each, "typing", stale)) : next;
    }, state),

  sampled: (state, { milliseconds }) => ({ ...state, samples: [...state.samples, milliseconds].slice(-MAX_SAMPLES) }),
};

function applyEvent(state, event, received_at) {
  const id = event.conversation_id;
  if (event.type === "Typing") {
    const until = received_at + event.expires_in_ms;
    return change(state, id, (held) => ({ ...held, typing: { ...held.typing, [event.user_id]: until } }));
  }
  if (event.type === "PresenceChanged") {
    const online = { ...state.online };
    if (event.online) online[event.user_id] = true;
    else delete online[event.user_id];
    return { ...state, online };
  }
  if (event.type === "ReceiptAdvanced") {
    return change(state, id, (held) => {
      const receipts = raiseReceipt(held.receipts, event);
      const isRead = event.user_id === state.me?.user_id && receipts[event.user_id].read_seq >= held.seq;
      return { ...held, receipts, unread_count: isRead ? 0 : held.unread_count };
    });
  }
  return change(state, id, (held) => applyEntry(held, event, received_at, state.me?.user_id));
}

// A log entry: what it shows is applied whenever it comes; what it counts, only if it is news.
function applyEntry(held, event, received_at, me) {
  const isNews = event.seq > held.seq;
  let next = { ...held, seq: Math.max(held.seq, event.seq), active_at: later(held.active_at, event.created_at) };
  if (event.type === "MessageSent") {
    next = addMessage(next, event);
    next = without({ ...next, received: { [event.message_id]: received_at, ...next.received } }, "typing", [event.actor_id]);
    if (isNews && event.actor_id !== me) next = { ...next, unread_count: next.unread_count + 1 };
    return next;
  }
  if (event.type === "MessageEdited" || event.type === "MessageDeleted") return addChange(next, event);
  if (!isNews) return next;
  if (event.type === "ConversationCreated") {
    const participants = event.participants.map((user_id) => ({
      user_id, role: user_id === event.actor_id ? "admin" : "member", joined_seq: event.seq, left_seq: null,
    }));
    return { ...next, title: event.title ?? null, participants };
  }
  if (event.type === "TitleChanged") return { ...next, title: event.title };
  if (event.type === "ParticipantJoined") {
    const others = next.participants.filter((each) => each.user_id !== event.user_id);
    const joined = { user_id: event.user_id, role: event.role, joined_seq: event.seq, left_seq: null };
    return { ...next, participants: [...others, joined], left_seq: event.user_id === me ? null : next.left_seq };
  }
  if (event.type === "ParticipantLeft") {
    const participants = next.participants.map((each) => {
      if (each.user_id === event.user_id) return { ...each, left_seq: event.seq };
      return each.user_id === event.successor_id ? { ...each, role: "admin" } : each;
    });
    return { ...next, participants, left_seq: event.user_id === me ? event.seq : next.left_seq };
  }
  return next;
}

// A page shows a message as it was when the page was made; a change that was told live may be younger.
function addMessage(held, message) {
  const known = held.messages[message.message_id];
  const { message_id, seq, actor_id, created_at, body, reply_to = null, edited = false, deleted = false } = message;
  let shown = { message_id, seq, actor_id, created_at, body, reply_to, edited, deleted };
  if (known && message.type === "MessageSent") shown = known; // a repetition tells less than what is known
  shown = applyChange(shown, held.changes[message_id]);
  const next = { ...withoutOutgoing(held, message_id), messages: { ...held.messages, [message_id]: shown } };
  const isNewest = !held.last_message || held.last_message.seq <= seq;
  return isNewest ? { ...next, last_message: shown, active_at: later(next.active_at, created_at) } : next;
}

function addChange(held, event) {
  const known = held.changes[event.message_id];
  if (known && known.seq >= event.seq) return held;
  const next = { ...held, changes: { ...held.changes, [event.message_id]: event } };
  const message = next.messages[event.message_id];
  if (message) next.messages = { ...next.messages, [event.message_id]: applyChange(message, event) };
  if (next.last_message?.message_id === event.message_id) next.last_message = applyChange(next.last_message, event);
  return next;
}

function applyChange(message, event) {
  if (!event) return message;
  if (event.type === "MessageDeleted") return { ...message, body: null, deleted: true };
  return message.deleted ? message : { ...message, body: event.body, edited: true };
}

function mergeLine(held, line) {
  if (line.seq < held.seq) return held; // the events that were told meanwhile are younger
  return {
    ...held,
    title: line.title,
    seq: line.seq,
    left_seq: line.left_seq,
    unread_count: line.unread_count,
    last_message: line.last_message,
    active_at: later(held.active_at, line.last_message?.created_at ?? ""),
  };
}

function raiseReceipt(receipts, { user_id, delivered_seq, read_seq }) {
  const held = receipts[user_id] ?? { delivered_seq: 0, read_seq: 0 };
  return {
    ...receipts,
    [user_id]: {
      delivered_seq: Math.max(held.delivered_seq, delivered_seq),
      read_seq: Math.max(held.read_seq, read_seq),
    },
  };
}

function withoutOutgoing(held, message_id) {
  if (!held.outgoing.some((each) => each.message_id === message_id)) return held;
  return { ...held, outgoing: held.outgoing.filter((each) => each.message_id !== message_id) };
}

function withUsers(state, users) {
  const named = Object.fromEntries(users.map((user) => [user.user_id, user]));
  return { ...state, users: { ...state.users, ...named } };
}

function change(state, id, how) {
  const held = state.conversations[id] ?? newConversation(id);
  return { ...state, conversations: { ...state.conversations, [id]: how(held) } };
}

function without(held, field, keys) {
  if (!keys.some((key) => key in held[field])) return held;
  const rest = { ...held[field] };
  for (const key of keys) delete rest[key];
  return { ...held, [field]: rest };
}

function later(one, other) {
  return one > other ? one : other; // RFC 3339, UTC, microseconds: text order is time order
}

// --- what is read out of a state ---

export function timelineOf(held) {
  return Object.values(held.messages).sort((one, other) => one.seq - other.seq);
}

export function inboxOf(state) {
  return Object.values(state.conversations)
    .filter((held) => held.seq > 0)
    .sort((one, other) => (one.active_at < other.active_at ? 1 : one.active_at > other.active_at ? -1 : 0));
}

export function nameOf(state, user_id) {
  return state.users[user_id]?.display_name ?? "somebody";
}

export function titleOf(state, held) {
  if (held.title) return held.title;
  const others = held.participants.filter((each) => each.user_id !== state.me?.user_id && each.left_seq === null);
  return others.length ? others.map((each) => nameOf(state, each.user_id)).join(", ") : "Untitled";
}

// How far one's own message has got with the others: "sent", "delivered" to all of them, "read" by all of them.
export function progressOf(state, held, message) {
  const others = held.participants.filter(
    (each) => each.user_id !== message.actor_id && each.joined_seq <= message.seq && each.left_seq === null,
  );
  const has = (field) => others.every((each) => (held.receipts[each.user_id]?.[field] ?? 0) >= message.seq);
  if (!others.length) return "sent";
  return has("read_seq") ? "read" : has("delivered_seq") ? "delivered" : "sent";
}
