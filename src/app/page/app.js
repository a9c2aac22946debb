// The page's behaviour. Text from the server is only ever set as text: the page's
// Content-Security-Policy forbids anything else, inline scripts and styles included.
"use strict";

const LIMIT = 10;
const PATIENCE_MS = 15000;

const at = (id) => document.getElementById(id);
const view = {
  total: at("total"), unit: at("total-unit"), notice: at("notice"), position: at("position"),
  rows: at("rows"), table: at("table"), body: at("body"), empty: at("empty"),
  workers: at("workers"), populate: at("populate"), refresh: at("refresh"), erase: at("delete"),
  confirm: at("confirm"), pages: at("pages"), newer: at("newer"), older: at("older"),
};

// Where each page before this one began; the last entry is this page's. null: the newest rows.
const trail = [null];
let next = null;
// Whether there is nothing to delete, as far as is known.
let empty = true;
// How often each worker has answered, and which was the last.
const answered = new Map();
let last = null;

class Failure extends Error {}

// One request, with its failure in words.
async function ask(method, path) {
  let response;
  try {
    response = await fetch(path, { method, signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch (cause) {
    throw new Failure(cause.name === "TimeoutError"
      ? "The server took too long to answer. Try again in a moment."
      : "The server cannot be reached. Check that it runs, then try again.");
  }
  count(response.headers.get("x-worker"));
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const said = body.error ? `${body.error[0].toUpperCase()}${body.error.slice(1)}.`
    : `The server answered with status ${response.status}.`;
  throw new Failure(response.status === 503 ? `${said} Try again in a moment.` : said);
}

function say(text, kind = "") {
  view.notice.className = `notice ${kind}`;
  view.notice.textContent = text;
}

function by(worker) {
  return worker === null ? "" : ` Worker ${worker} answered.`;
}

// Does one thing at a time. The buttons rest meanwhile, and keep the focus: `aria-disabled` does not
// take it from them, as `disabled` would.
let busy = false;
async function act(doing, work) {
  if (busy) return;
  busy = true;
  settle();
  say(doing, "busy");
  try {
    say(await work());
  } catch (failure) {
    if (!(failure instanceof Failure)) console.error(failure);
    say(failure instanceof Failure ? failure.message : "Something went wrong on this page.",
      "error");
  } finally {
    busy = false;
    settle();
  }
}

function settle() {
  const [first, last] = [trail.length === 1, next === null];
  rest(view.populate, busy);
  rest(view.refresh, busy);
  rest(view.erase, busy || empty);
  rest(view.newer, busy || first);
  rest(view.older, busy || last);
  view.rows.setAttribute("aria-busy", String(busy));
  if (busy) return;
  const hidden = first && last;
  if (hidden && view.pages.contains(document.activeElement)) view.rows.focus();
  view.pages.hidden = hidden;
}

function rest(button, resting) {
  button.setAttribute("aria-disabled", String(resting));
}

function press(button, pressed) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") pressed();
  });
}

async function load(fresh) {
  const before = trail.at(-1);
  const page = await ask("GET", `/data?limit=${LIMIT}${before === null ? "" : `&before=${before}`}`);
  if (page.rows.length === 0 && trail.length > 1) {
    // Somebody has deleted them meanwhile.
    trail.length = 1;
    return load(fresh);
  }
  next = page.next;
  show(page, fresh);
}

// What was done is done, also when it cannot be shown.
async function done(told, fresh) {
  trail.length = 1;
  try {
    await load(fresh);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    throw new Failure(`${told} But the rows below are not up to date. ${failure.message}`);
  }
  return told;
}

function show({ rows, total }, fresh) {
  // A page that holds all has counted them, and no other can have come in between.
  if (trail.length === 1 && next === null) total = rows.length;
  empty = total === 0;
  view.total.textContent = total === null ? "Many" : total.toLocaleString("en");
  view.unit.textContent = total === 1 ? "row stored" : "rows stored";
  view.position.textContent = trail.length === 1 ? "newest first" : `page ${trail.length}`;
  view.empty.textContent = empty ? "There are no rows. “Add a row” makes one." : "";
  view.empty.hidden = rows.length > 0;
  view.table.hidden = rows.length === 0;
  view.body.replaceChildren(...rows.map((row) => line(row, row.data === fresh)));
}

function line({ id, data, created_at: stored }, fresh) {
  const row = document.createElement("tr");
  if (fresh) row.className = "fresh";
  const time = document.createElement("time");
  const date = new Date(stored);
  time.dateTime = stored;
  time.title = date.toLocaleString();
  time.textContent = date.toDateString() === new Date().toDateString()
    ? date.toLocaleTimeString() : date.toLocaleDateString();
  for (const content of [String(id), data, time]) {
    const cell = document.createElement("td");
    cell.append(content);
    row.append(cell);
  }
  return row;
}

// Who answered: a bar for each worker, the last one marked.
function count(worker) {
  if (worker === null) return;
  last = worker;
  answered.set(worker, (answered.get(worker) ?? 0) + 1);
  const most = Math.max(...answered.values());
  const slots = [...answered.keys()].sort((a, b) => a - b);
  view.workers.replaceChildren(...slots.map((slot) => {
    const item = document.createElement("li");
    if (slot === worker) item.className = "last";
    const name = document.createElement("span");
    name.textContent = `worker ${slot}`;
    const bar = document.createElement("meter");
    bar.max = most;
    bar.value = answered.get(slot);
    bar.setAttribute("aria-hidden", "true");
    const times = document.createElement("span");
    times.textContent = String(answered.get(slot));
    item.append(name, bar, times);
    return item;
  }));
}

press(view.populate, () => act("Adding a row…", async () => {
  const { data } = await ask("POST", "/populate");
  return done(`Added ${data}.${by(last)}`, data);
}));

press(view.refresh, () => act("Loading…", async () => {
  await load();
  return `Up to date.${by(last)}`;
}));

press(view.erase, () => {
  view.confirm.returnValue = "";
  view.confirm.showModal();
});

view.confirm.addEventListener("close", () => {
  if (view.confirm.returnValue !== "delete") return;
  act("Deleting…", async () => {
    const { message } = await ask("DELETE", "/delete");
    return done(`${message[0].toUpperCase()}${message.slice(1)}.${by(last)}`);
  });
});

press(view.older, () => turn(() => trail.push(next)));
press(view.newer, () => turn(() => trail.pop()));

function turn(step) {
  const kept = [...trail];
  act("Loading…", async () => {
    step();
    try {
      await load();
    } catch (failure) {
      trail.splice(0, trail.length, ...kept);
      throw failure;
    }
    return `Page ${trail.length}.${by(last)}`;
  });
}

act("Loading…", async () => {
  await load();
  return `Ready.${by(last)}`;
});
