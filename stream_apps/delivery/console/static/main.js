// Wires the console: the one place that knows all its parts. Events of the page and of the server become actions.

import { Api, SignedOut, now } from "./api.js";
import { betterOffset, parseTime } from "./hops.js";
import { Live } from "./live.js";
import { Outgoing } from "./outbox.js";
import { Receipts } from "./receipts.js";
import { inboxOf, initialState, reduce, timelineOf } from "./state.js";
import { $, draw, drawInside } from "./view.js";

const TYPING_EVERY = 2_000;
const PARTS_EVERY = 5_000;
const MAX_LOOKUPS = 100;

let state = initialState();
let live = null;
let outgoing = null;
let receipts = null;
let hops = null;
let clock = null;
let typedAt = 0;
let isAtEnd = true;
let drawing = null;
const asked = new Set(); // user ids whose names were asked for
const api = new Api(sessionStorage);

function dispatch(action) {
  state = reduce(state, action);
  drawing ??= requestAnimationFrame(redraw);
  if (document.hidden) {
    cancelAnimationFrame(drawing); // a page that is not shown has no frames
    redraw();
  }
}

function redraw() {
  drawing = null;
  draw(state, on);
  if (!$("inside").hidden) drawInside(state, hops, clock);
  if (isAtEnd) scrollToEnd();
  keepOneInTabOrder();
  tellReceipts();
  findNames();
}

// --- signing in and out ---

async function begin() {
  const user = await api.profile();
  outgoing = new Outgoing(api, () => state, dispatch);
  receipts = new Receipts(api);
  live = new Live(api, {
    link: (name, sentence) => dispatch({ type: "linkChanged", link: { state: name, sentence } }),
    subscribed,
    event: onEvent,
    gap: onGap,
    signedOut: () => end("You have been signed out. Sign in again."),
  });
  dispatch({ type: "signedIn", user });
  live.start();
  measureClock();
}

function end(sentence) {
  live?.close();
  outgoing?.close();
  receipts?.close();
  live = outgoing = receipts = hops = clock = null;
  asked.clear();
  showInside(false);
  show("list");
  dispatch({ type: "signedOut" });
  $("sign-in-problem").textContent = sentence;
  $("sign-in-form").elements.username.focus();
}

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SignedOut) end(error.message);
    else tellProblem(error.message);
    return null;
  }
}

let problemTimer;
function tellProblem(sentence) {
  dispatch({ type: "problemTold", sentence });
  clearTimeout(problemTimer);
  problemTimer = setTimeout(() => dispatch({ type: "problemTold", sentence: null }), 8_000);
}

function showWay() {
  const isRegistering = $("sign-in-form").elements.way.value === "register";
  $("sign-in-form").dataset.way = isRegistering ? "register" : "sign-in";
  $("sign-in-form").querySelector("button[type=submit]").textContent = isRegistering ? "Register" : "Sign in";
  $("sign-in-form").elements.password.autocomplete = isRegistering ? "new-password" : "current-password";
}

$("sign-in-form").addEventListener("change", showWay);
$("sign-in-form").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const { way, username, password, display_name } = submitted.target.elements;
  const button = submitted.target.querySelector("button[type=submit]");
  const problem = $("sign-in-problem");
  problem.textContent = "";
  const invalid = [username, password].find((each) => !each.checkValidity());
  if (invalid) {
    problem.textContent = invalid === username ? "A username has 3 to 32 characters." : "A password has 8 to 128 characters.";
    invalid.focus();
    return;
  }
  button.disabled = true;
  try {
    if (way.value === "register") await api.register(username.value.trim(), password.value, display_name.value.trim());
    await api.signIn(username.value.trim().toLowerCase(), password.value);
    await begin();
    password.value = "";
    $("new-conversation").focus();
  } catch (error) {
    problem.textContent = error.message;
    password.focus();
  } finally {
    button.disabled = false;
  }
});

$("sign-out").addEventListener("click", () => {
  api.signOut().catch(() => {}); // the token is forgotten here whether or not the server hears of it
  end("You are signed out.");
});

// --- what the server tells ---

async function subscribed(isResumed) {
  outgoing.hurry();
  if (isResumed) return;
  await attempt(async () => {
    await readInbox();
    if (state.selected) await load(state.selected);
  });
}

async function readInbox() {
  let cursor = null;
  do {
    const page = await api.inbox(cursor);
    dispatch({ type: "inboxRead", lines: page.conversations });
    cursor = page.next;
  } while (cursor);
  await Promise.all(inboxOf(state).filter((held) => !held.title).slice(0, 20).map(readConversation));
}

async function readConversation({ conversation_id }) {
  dispatch({ type: "conversationRead", conversation: await api.conversation(conversation_id) });
}

function onEvent(event, receivedAt, subscribedAt) {
  const isKnown = event.conversation_id in state.conversations;
  dispatch({ type: "eventTold", event, received_at: receivedAt });
  if (event.type === "MessageSent" && clock) {
    const accepted = parseTime(event.created_at);
    if (accepted >= subscribedAt + clock.offset) {
      dispatch({ type: "sampled", milliseconds: Math.max(0, receivedAt + clock.offset - accepted) });
    }
  }
  if (event.seq) receipts.advance(event.conversation_id, { delivered_seq: event.seq });
  if (!isKnown && event.seq > 1) attempt(() => readConversation(event));
  if (event.type === "ConversationCreated" || event.type === "ParticipantJoined") readPresence(event.conversation_id);
  if (event.type === "Typing") setTimeout(() => dispatch({ type: "timePassed", now: now() }), event.expires_in_ms + 50);
}

// What is not proven to be told is fetched: the log's entries after what is known, which may repeat what is told later.
function onGap({ conversation_id, after_seq }) {
  const concerned = conversation_id ? [state.conversations[conversation_id]].filter(Boolean) : inboxOf(state);
  const positions = concerned.map((held) => [held.conversation_id, Math.min(after_seq ?? held.seq, held.seq)]);
  attempt(async () => {
    for (const [id, seq] of positions) await catchUp(id, seq);
    await readInbox();
  });
}

async function catchUp(conversation_id, after) {
  for (let next = after; next !== null; ) {
    const page = await api.events(conversation_id, next);
    for (const event of page.events) dispatch({ type: "eventTold", event, received_at: now() });
    next = page.next;
  }
}

// --- names ---

async function findNames() {
  const held = state.conversations[state.selected];
  const wanted = [
    ...inboxOf(state).map((each) => each.last_message?.actor_id),
    ...inboxOf(state).filter((each) => !each.title).flatMap((each) => each.participants.slice(0, 12).map((one) => one.user_id)),
    ...(held ? held.participants.slice(0, 50).map((each) => each.user_id) : []),
    ...(held ? timelineOf(held).map((each) => each.actor_id) : []),
  ];
  const ids = [...new Set(wanted)].filter((id) => id && !(id in state.users) && !asked.has(id)).slice(0, MAX_LOOKUPS);
  if (!ids.length) return;
  for (const id of ids) asked.add(id);
  try {
    dispatch({ type: "usersFound", users: await api.findUsers({ ids }) });
  } catch {
    setTimeout(() => ids.forEach((id) => asked.delete(id)), 10_000);
  }
}

// --- conversations ---

function select(conversation_id) {
  isAtEnd = true;
  hops = null;
  dispatch({ type: "selected", conversation_id });
  show("conversation");
  attempt(() => load(conversation_id));
  requestAnimationFrame(() => ($("composer-form").hidden ? $("conversation-title") : $("composer")).focus());
}

async function load(conversation_id) {
  const [conversation, page] = await Promise.all([api.conversation(conversation_id), api.messages(conversation_id)]);
  dispatch({ type: "conversationRead", conversation });
  dispatch({ type: "pageRead", conversation_id, page, isOlder: false });
  await readPresence(conversation_id);
}

async function readPresence(conversation_id) {
  try {
    const { online } = await api.presence(conversation_id);
    dispatch({ type: "presenceRead", conversation_id, online });
  } catch {
    // Presence is a hint; what happens next is told live.
  }
}

$("older").addEventListener("click", () =>
  attempt(async () => {
    const held = state.conversations[state.selected];
    const frame = $("log-frame");
    const fromEnd = frame.scrollHeight - frame.scrollTop;
    const page = await api.messages(held.conversation_id, held.prev);
    isAtEnd = false;
    dispatch({ type: "pageRead", conversation_id: held.conversation_id, page, isOlder: true });
    requestAnimationFrame(() => (frame.scrollTop = frame.scrollHeight - fromEnd));
  }),
);

$("new-conversation").addEventListener("click", () => {
  $("create-form").reset();
  $("create-problem").textContent = "";
  $("create").showModal();
});
$("create-cancel").addEventListener("click", () => $("create").close());
$("create-form").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const { usernames, title } = submitted.target.elements;
  const names = [...new Set(usernames.value.toLowerCase().split(/[\s,;]+/).filter(Boolean))];
  const button = submitted.target.querySelector("button[type=submit]");
  button.disabled = true;
  try {
    const found = names.length ? await api.findUsers({ usernames: names }) : [];
    dispatch({ type: "usersFound", users: found });
    const missing = names.filter((name) => !found.some((user) => user.username === name));
    if (missing.length) throw new Error(`There is nobody named ${missing.join(", ")}.`);
    const fields = { participants: found.map((user) => user.user_id), ...(title.value.trim() ? { title: title.value.trim() } : {}) };
    const created = await api.create(fields);
    $("create").close();
    dispatch({ type: "eventTold", received_at: now(), event: { ...created, type: "ConversationCreated", actor_id: state.me.user_id } });
    select(created.conversation_id);
  } catch (error) {
    if (error instanceof SignedOut) {
      $("create").close();
      end(error.message);
      return;
    }
    $("create-problem").textContent = error.message;
    usernames.focus();
  } finally {
    button.disabled = false;
  }
});

// --- messages ---

function act(action, message_id) {
  const id = state.selected;
  switch (action) {
    case "reply":
      dispatch({ type: "replyChosen", message_id });
      $("composer").focus();
      break;
    case "edit":
      dispatch({ type: "editChosen", message_id });
      $("composer").value = state.conversations[id].messages[message_id].body.text;
      fitComposer();
      $("composer").focus();
      break;
    case "remove":
      $("confirm").dataset.message = message_id;
      $("confirm").showModal();
      break;
    case "inspect":
      hops = null;
      dispatch({ type: "inspected", message_id });
      showInside(true);
      readHops();
      break;
    case "again":
      outgoing.again(id, message_id);
      break;
    case "discard":
      dispatch({ type: "outgoingDropped", conversation_id: id, message_id });
      break;
  }
}

$("confirm-cancel").addEventListener("click", () => $("confirm").close());
$("confirm-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const message_id = $("confirm").dataset.message;
  const id = state.selected;
  $("confirm").close();
  attempt(async () => {
    const { seq, created_at } = await api.remove(id, message_id);
    tellOwnChange({ type: "MessageDeleted", conversation_id: id, message_id, seq, created_at });
  });
  $("composer").focus();
});

function tellOwnChange(event) {
  dispatch({ type: "eventTold", received_at: now(), event: { ...event, actor_id: state.me.user_id } });
}

function submitComposer() {
  const text = $("composer").value;
  if (!text.trim() || !state.selected) return;
  const { selected: id, editing, replyTo } = state;
  $("composer").value = "";
  fitComposer();
  typedAt = 0;
  isAtEnd = true;
  dispatch({ type: "replyChosen", message_id: null });
  if (!editing) {
    outgoing.add(id, text, replyTo);
    return;
  }
  attempt(async () => {
    const { seq, created_at } = await api.edit(id, editing, text);
    tellOwnChange({ type: "MessageEdited", conversation_id: id, message_id: editing, body: { type: "text", text }, seq, created_at });
  });
}

function cancelAbout() {
  if (state.editing) $("composer").value = "";
  fitComposer();
  dispatch({ type: "replyChosen", message_id: null });
  $("composer").focus();
}

function fitComposer() {
  const composer = $("composer");
  composer.rows = Math.min(8, composer.value.split("\n").length);
}

$("about-cancel").addEventListener("click", cancelAbout);
$("composer-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  submitComposer();
});
$("composer").addEventListener("keydown", (pressed) => {
  if (pressed.key === "Enter" && !pressed.shiftKey && !pressed.isComposing) {
    pressed.preventDefault();
    submitComposer();
  } else if (pressed.key === "Escape" && (state.editing || state.replyTo)) {
    cancelAbout();
  } else if (pressed.key === "ArrowUp" && $("composer").value === "") {
    pressed.preventDefault();
    $("log").lastElementChild?.focus();
  }
});
$("composer").addEventListener("input", () => {
  fitComposer();
  if (state.selected && $("composer").value && now() - typedAt > TYPING_EVERY) {
    typedAt = now();
    live.say({ type: "typing", conversation_id: state.selected });
  }
});

// One message is in the tab order, with its buttons; arrow keys walk through the others.
function keepOneInTabOrder() {
  const articles = [...$("log").querySelectorAll("article")];
  const current = articles.find((each) => each.contains(document.activeElement)) ?? articles.at(-1);
  for (const each of articles) {
    const index = each === current ? "0" : "-1";
    if (each.getAttribute("tabindex") === index) continue;
    for (const one of [each, ...each.querySelectorAll("button, a")]) one.setAttribute("tabindex", index);
  }
}

$("log").addEventListener("focusin", keepOneInTabOrder);
$("log").addEventListener("keydown", (pressed) => {
  const articles = [...$("log").querySelectorAll("article")];
  const at = articles.indexOf(document.activeElement.closest("article"));
  const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: articles.length - 1 }[pressed.key];
  if (pressed.key === "Enter" && document.activeElement === articles[at] && articles[at].dataset.seq) {
    act("inspect", articles[at].dataset.message);
  } else if (pressed.key === "Escape" || to === articles.length) {
    $("composer").focus();
  } else if (to !== undefined) {
    articles[Math.max(0, to)]?.focus();
  } else return;
  pressed.preventDefault();
});

// --- receipts, scrolling, views ---

function tellReceipts() {
  const held = state.conversations[state.selected];
  if (!held?.isLoaded || held.left_seq !== null || document.hidden || !isAtEnd || !held.seq) return;
  if (document.body.dataset.view === "list" && matchMedia("(max-width: 44rem)").matches) return;
  if ((held.receipts[state.me.user_id]?.read_seq ?? 0) >= held.seq && !held.unread_count) return;
  receipts.advance(held.conversation_id, { read_seq: held.seq });
}

function scrollToEnd() {
  const frame = $("log-frame");
  frame.scrollTop = frame.scrollHeight;
}

$("log-frame").addEventListener("scroll", () => {
  const frame = $("log-frame");
  isAtEnd = frame.scrollHeight - frame.scrollTop - frame.clientHeight < 40;
  if (isAtEnd && state.me) tellReceipts();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && state.me) dispatch({ type: "timePassed", now: now() });
});

function show(view) {
  document.body.dataset.view = view;
}

$("back").addEventListener("click", () => {
  show("list");
  ($("inbox").querySelector("[aria-current]") ?? $("new-conversation")).focus();
});

// --- the inside view ---

let partsTimer;
function showInside(isShown) {
  $("inside").hidden = !isShown;
  $("toggle-inside").setAttribute("aria-expanded", String(isShown));
  document.body.classList.toggle("with-inside", isShown);
  clearInterval(partsTimer);
  if (!isShown) return;
  partsTimer = setInterval(() => document.hidden || readParts(), PARTS_EVERY);
  readParts();
  dispatch({ type: "timePassed", now: now() });
  $("inside-heading").focus();
}

$("toggle-inside").addEventListener("click", () => showInside($("inside").hidden));
$("close-inside").addEventListener("click", closeInside);
$("inside").addEventListener("keydown", (pressed) => pressed.key === "Escape" && closeInside());

function closeInside() {
  const message = state.inspected && $("log").querySelector(`[data-message="${state.inspected}"]`);
  showInside(false);
  (message || $("toggle-inside")).focus();
}

async function readParts() {
  const askedAt = now();
  try {
    const { parts, answered_at } = await api.parts();
    clock = betterOffset(clock, { asked_at: askedAt, answered_at: parseTime(answered_at), came_at: now() });
    dispatch({ type: "partsSeen", parts });
  } catch (error) {
    if (error instanceof SignedOut) end(error.message);
    else dispatch({ type: "partsSeen", parts: [{ name: "delivery", state: "down", answered_in_ms: null }] });
  }
}

// The parts are asked at most every two seconds, so the later answers come at once, and tell the time well.
async function measureClock() {
  for (let count = 0; count < 4 && state.me; count++) await readParts();
}

async function readHops() {
  const message_id = state.inspected;
  const conversation_id = state.selected;
  try {
    const found = await api.hops(conversation_id, message_id);
    if (state.inspected === message_id) hops = found;
  } catch (error) {
    if (error instanceof SignedOut) return end(error.message);
    hops = { problem: error.message };
  }
  dispatch({ type: "timePassed", now: now() });
}

const on = { select, act };

showWay();
draw(state, on);
if (api.canResume) {
  begin().catch((error) => ($("sign-in-problem").textContent = error.message));
}
