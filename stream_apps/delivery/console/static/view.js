// Draws a state into the page. Text of users goes in as text alone. What has not changed is left alone, so that the
// keyboard's focus and screen readers are not disturbed.

import { inboxOf, nameOf, progressOf, timelineOf, titleOf } from "./state.js";
import { formatMilliseconds, percentile, waterfall } from "./hops.js";

export const $ = (id) => document.getElementById(id);

// An element: properties that are functions listen, `class` and aria-… and data-… are attributes, children are text.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

// Makes the children of `parent` those of `items`: [{key, sign, make}]. One whose sign is the same stays.
function drawList(parent, items) {
  const held = new Map([...parent.children].map((each) => [each.dataset.key, each]));
  let at = parent.firstElementChild;
  for (const { key, sign, make } of items) {
    let element = held.get(key);
    held.delete(key);
    if (!element || element.dataset.sign !== sign) {
      const fresh = make();
      fresh.dataset.key = key;
      fresh.dataset.sign = sign;
      if (element) {
        const label = element.contains(document.activeElement) ? labelOf(document.activeElement) : null;
        if (element === at) at = element.nextElementSibling;
        element.replaceWith(fresh);
        if (label !== null) ([...fresh.querySelectorAll("button")].find((each) => labelOf(each) === label) ?? fresh).focus();
      }
      element = fresh;
    }
    if (element === at) at = at.nextElementSibling;
    else if (element.nextElementSibling !== at || element.parentNode !== parent) parent.insertBefore(element, at);
  }
  for (const gone of held.values()) gone.remove();
}

const labelOf = (element) => element.dataset.action ?? "";

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const timeOf = (text) => (text ? timeFormat.format(new Date(text)) : "");
const textOf = (body) => (body === null ? "Deleted" : body.type === "file" ? `📎 ${body.name}` : body.text);
const PROGRESS = { sent: "Sent", delivered: "Delivered", read: "Read" };

export function draw(state, on) {
  document.body.dataset.page = state.me ? "chat" : "sign-in";
  $("sign-in").hidden = state.me !== null;
  $("chat").hidden = state.me === null;
  drawProblem(state);
  if (!state.me) {
    document.title = "Chat4All";
    return;
  }
  setText($("me"), state.me.display_name);
  setText($("link"), state.link.sentence);
  $("link").dataset.state = state.link.state;
  drawInbox(state, on);
  drawConversation(state, on);
  const unread = inboxOf(state).reduce((sum, held) => sum + held.unread_count, 0);
  document.title = unread ? `(${unread}) Chat4All` : "Chat4All";
}

function drawProblem(state) {
  setText($("problem"), state.problem ?? "");
  $("problem").hidden = state.problem === null || state.me === null;
}

function drawInbox(state, on) {
  const lines = inboxOf(state);
  $("inbox-empty").hidden = lines.length > 0;
  drawList(
    $("inbox"),
    lines.map((held) => {
      const title = titleOf(state, held);
      const last = held.last_message;
      const preview = last ? `${last.actor_id === state.me.user_id ? "You" : nameOf(state, last.actor_id)}: ${textOf(last.body)}` : "No message yet";
      const isSelected = held.conversation_id === state.selected;
      const unread = held.unread_count;
      return {
        key: held.conversation_id,
        sign: JSON.stringify([title, preview, isSelected, unread, last?.created_at]),
        make: () =>
          h("li", {},
            h("button", {
              type: "button",
              class: "line",
              "data-action": "open",
              "aria-current": isSelected ? "true" : null,
              click: () => on.select(held.conversation_id),
            },
              h("span", { class: "line-title" }, title),
              h("span", { class: "line-time" }, timeOf(last?.created_at)),
              h("span", { class: "line-preview" }, preview.slice(0, 120)),
              unread ? h("span", { class: "badge" }, String(unread), h("span", { class: "hidden" }, " unread")) : null,
            )),
      };
    }),
  );
}

function drawConversation(state, on) {
  const held = state.conversations[state.selected];
  $("composer-form").hidden = !held || held.left_seq !== null;
  $("left").hidden = !held || held.left_seq === null;
  $("older").hidden = !held?.isLoaded || held.prev === null;
  setText($("conversation-title"), held ? titleOf(state, held) : "Choose a conversation");
  setText($("participants"), held ? describeParticipants(state, held) : "");
  setText($("typing"), held ? describeTyping(state, held) : "");
  $("log").dataset.conversation = state.selected ?? "";
  const messages = held ? timelineOf(held) : [];
  const items = [];
  let day = "";
  for (const message of messages) {
    const own = new Date(message.created_at).toDateString();
    if (own !== day) items.push(dayItem(message, (day = own)));
    items.push(messageItem(state, held, message, on));
  }
  for (const message of held?.outgoing ?? []) items.push(outgoingItem(state, held, message, on));
  drawList($("log"), items);
  drawAbout(state, held);
}

function describeParticipants(state, held) {
  const present = held.participants.filter((each) => each.left_seq === null);
  const named = present.slice(0, 12).map((each) => {
    const name = each.user_id === state.me.user_id ? "you" : nameOf(state, each.user_id);
    return state.online[each.user_id] && each.user_id !== state.me.user_id ? `${name} (online)` : name;
  });
  if (present.length > 12) named.push(`${present.length - 12} more`);
  return named.join(", ");
}

function describeTyping(state, held) {
  const names = Object.keys(held.typing).map((user_id) => nameOf(state, user_id));
  if (!names.length) return "";
  return `${names.slice(0, 3).join(", ")} ${names.length > 1 ? "are" : "is"} writing …`;
}

function dayItem(message, day) {
  return {
    key: `day ${day}`,
    sign: day,
    make: () => h("p", { class: "day" }, dayFormat.format(new Date(message.created_at))),
  };
}

function messageItem(state, held, message, on) {
  const isOwn = message.actor_id === state.me.user_id;
  const name = isOwn ? "You" : nameOf(state, message.actor_id);
  const progress = isOwn ? progressOf(state, held, message) : null;
  const answered = message.reply_to ? held.messages[message.reply_to] : null;
  const quote = message.reply_to ? (answered ? `${nameOf(state, answered.actor_id)}: ${textOf(answered.body)}` : "an earlier message") : null;
  const isInspected = state.inspected === message.message_id;
  const isPresent = held.left_seq === null;
  return {
    key: message.message_id,
    sign: JSON.stringify([name, progress, quote, message.body, message.edited, message.deleted, isInspected, isPresent]),
    make: () => {
      const does = (action) => () => on.act(action, message.message_id);
      const button = (action, label) => h("button", { type: "button", tabindex: "-1", "data-action": action, click: does(action) }, label);
      const canEdit = isOwn && isPresent && !message.deleted && message.body?.type === "text";
      return h("article", {
        class: `message ${isOwn ? "own" : "other"}${message.deleted ? " deleted" : ""}${isInspected ? " inspected" : ""}`,
        tabindex: "-1",
        "data-seq": message.seq,
        "data-message": message.message_id,
        "aria-label": `${name}, ${timeOf(message.created_at)}`,
      },
        h("header", {}, h("span", { class: "author" }, name), h("time", { datetime: message.created_at }, timeOf(message.created_at))),
        quote ? h("blockquote", {}, quote.slice(0, 160)) : null,
        message.body?.type === "file" && isSafe(message.body.url)
          ? h("p", { class: "text" }, h("a", { href: message.body.url, rel: "noopener noreferrer", target: "_blank", tabindex: "-1" }, textOf(message.body)))
          : h("p", { class: "text" }, textOf(message.body)),
        h("footer", {},
          message.edited && !message.deleted ? h("span", { class: "mark" }, "edited") : null,
          progress ? h("span", { class: "mark progress" }, PROGRESS[progress]) : null,
          h("span", { class: "actions" },
            isPresent && !message.deleted ? button("reply", "Reply") : null,
            canEdit ? button("edit", "Edit") : null,
            isOwn && isPresent && !message.deleted ? button("remove", "Delete") : null,
            button("inspect", "Inside"))));
    },
  };
}

function isSafe(url) {
  return /^https?:\/\//i.test(url);
}

function outgoingItem(state, held, message, on) {
  return {
    key: message.message_id,
    sign: JSON.stringify(["outgoing", message.state, message.problem]),
    make: () =>
      h("article", {
        class: `message own outgoing ${message.state}`, tabindex: "-1", "data-message": message.message_id, "aria-label": "You, being sent",
      },
        h("header", {}, h("span", { class: "author" }, "You")),
        h("p", { class: "text" }, message.text),
        h("footer", {},
          h("span", { class: "mark" }, message.state === "failed" ? message.problem : (message.problem ?? "Sending …")),
          message.state === "failed"
            ? h("span", { class: "actions shown" },
                h("button", { type: "button", "data-action": "again", click: () => on.act("again", message.message_id) }, "Try again"),
                h("button", { type: "button", "data-action": "discard", click: () => on.act("discard", message.message_id) }, "Discard"))
            : null)),
  };
}

function drawAbout(state, held) {
  const id = state.replyTo ?? state.editing;
  const message = held?.messages[id];
  $("about").hidden = !message;
  if (message) setText($("about-text"), `${state.editing ? "Editing" : `Replying to ${nameOf(state, message.actor_id)}`}: ${textOf(message.body).slice(0, 80)}`);
}

// --- the inside view ---

export function drawInside(state, hops, clock) {
  const held = state.conversations[state.selected];
  const message = held?.messages[state.inspected];
  drawWaterfall(held, message, hops, clock);
  drawFigures(state);
  drawParts(state);
}

function drawWaterfall(held, message, hops, clock) {
  const frame = $("waterfall");
  if (!message || !hops || hops.message_id !== message.message_id) {
    frame.replaceChildren();
    setText($("hops-about"), message ? (hops?.problem ?? "Asking …") : "Choose “Inside” at a message to see its way through the system.");
    setText($("clock"), "");
    return;
  }
  const received = held.received[message.message_id] ?? null;
  const { rows, total } = waterfall(hops, received, clock?.offset ?? 0);
  setText($("hops-about"), `Seq ${message.seq}: “${textOf(message.body).slice(0, 60)}”, ${formatMilliseconds(total)} in all.`);
  const scale = total > 0 ? 100 / total : 0;
  frame.replaceChildren(
    h("table", {},
      h("caption", { class: "hidden" }, "The message's moments, from accepted to received"),
      h("thead", {}, h("tr", {}, ...["Moment", "Hop", "After", "Timeline"].map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, ...rows.map((row) => {
        const bar = h("span", { class: "hop-bar", "aria-hidden": "true" });
        bar.style.setProperty("--start", `${(row.start ?? 0) * scale}%`);
        bar.style.setProperty("--took", `${(row.took ?? 0) * scale}%`);
        return h("tr", { "data-moment": row.name, "data-at": row.at, "data-took": row.took, class: row.at === null ? "unknown" : null },
          h("th", { scope: "row", title: row.meaning }, row.label),
          h("td", {}, row.at === null ? "not known" : formatMilliseconds(row.took)),
          h("td", {}, row.at === null ? "" : formatMilliseconds(row.at)),
          h("td", { class: "track" }, bar));
      }))),
  );
  const precision = clock ? `This browser's clock is taken to be ${formatMilliseconds(Math.abs(clock.offset))} ${clock.offset > 0 ? "behind" : "ahead of"} the server's, give or take ${formatMilliseconds(clock.error)}.` : "";
  setText($("clock"), received === null ? "This message did not come live, so when it was received is not known." : precision);
}

function drawFigures(state) {
  const figures = [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]].map(([name, share]) => [name, formatMilliseconds(percentile(state.samples, share))]);
  figures.push(["messages", String(state.samples.length)]);
  drawList($("percentiles"), figures.map(([name, value]) => ({
    key: name, sign: value, make: () => h("div", { "data-figure": name }, h("dt", {}, name), h("dd", {}, value)),
  })));
}

function drawParts(state) {
  drawList($("parts"), state.parts.map((part) => ({
    key: part.name,
    sign: JSON.stringify(part),
    make: () => h("li", { "data-state": part.state },
      h("span", { class: "dot", "aria-hidden": "true" }), h("span", { class: "part-name" }, part.name),
      h("span", { class: "part-state" }, part.state), h("span", { class: "quiet" }, formatMilliseconds(part.answered_in_ms))),
  })));
}
