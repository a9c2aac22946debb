// The page's behaviour. Text from the server is only ever set as text: the page's
// Content-Security-Policy forbids anything else, inline scripts and styles included.
"use strict";

const LIMIT = 10;
const PATIENCE_MS = 15000;

const at = (id) => document.getElementById(id);
const view = {
  total: at("total"), unit: at("total-unit"), notice: at("notice"), position: at("position"),
  table: at("rows"), body: at("body"), empty: at("empty"), workers: at("workers"),
  populate: at("populate"), refresh: at("refresh"), erase: at("delete"), confirm: at("confirm"),
  newer: at("newer"), older: at("older"),
};

// Where each page before this one began; the last entry is this page's. null: the newest rows.
const trail = [null];
let next = null;
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

// Does one thing at a time: the buttons rest meanwhile, and the focus stays where it was.
let busy = false;
async function act(doing, work) {
  if (busy) return;
  busy = true;
  const focused = document.activeElement;
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
    if (focused && focused !== document.body && !focused.disabled) focused.focus();
  }
}

function settle() {
  for (const button of [view.populate, view.refresh, view.erase]) button.disabled = busy;
  view.newer.disabled = busy || trail.length === 1;
  view.older.disabled = busy || next === null;
  view.table.setAttribute("aria-busy", String(busy));
}

async function load(fresh) {
  const before = trail.at(-1);
  const page = await ask("GET", `/data?limit=${LIMIT}${before === null ? "" : `&before=${before}`}`);
  next = page.next;
  show(page, fresh);
}

function show({ rows, total }, fresh) {
  view.total.textContent = total === null ? "> 1,000,000" : total.toLocaleString("en");
  view.unit.textContent = total === 1 ? "row stored" : "rows stored";
  view.position.textContent = trail.length === 1 ? "newest first" : `page ${trail.length}`;
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

view.populate.addEventListener("click", () => act("Adding a row…", async () => {
  const { data } = await ask("POST", "/populate");
  const worker = last;
  trail.length = 1;
  await load(data);
  return `Added ${data}.${by(worker)}`;
}));

view.refresh.addEventListener("click", () => act("Loading…", async () => {
  await load();
  return `Up to date.${by(last)}`;
}));

view.erase.addEventListener("click", () => {
  view.confirm.returnValue = "";
  view.confirm.showModal();
});

view.confirm.addEventListener("close", () => {
  if (view.confirm.returnValue !== "delete") return;
  act("Deleting…", async () => {
    const { message } = await ask("DELETE", "/delete");
    const worker = last;
    trail.length = 1;
    await load();
    return `${message[0].toUpperCase()}${message.slice(1)}.${by(worker)}`;
  });
});

view.older.addEventListener("click", () => turn(() => trail.push(next)));
view.newer.addEventListener("click", () => turn(() => trail.pop()));

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
