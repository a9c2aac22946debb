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
  signin: at("signin"), told: at("signin-text"), login: at("login"), name: at("name"),
  password: at("password"), enter: at("enter"), session: at("session"), user: at("user"),
  signout: at("signout"),
};

// The parts that need this script are hidden without it.
for (const id of ["actions", "rows", "answers"]) at(id).hidden = false;

// The session: writing takes a user or not, the name that is signed in, and the right to read the rows.
const session = { users: false, name: null, read: true };

// Where each page before this one began; the last entry is this page's. null: the newest rows.
const trail = [null];
let next = null;
// True if there is nothing to delete, as far as is known.
let empty = true;
// The requests that each serving worker has answered, as the server counts them, and the worker that
// answered this page last.
let workers = new Map();
let last = null;

class Failure extends Error {}

// The doubts about a request without an answer.
const UNSURE = {
  "POST /populate": " The row may have been stored: “Refresh” shows it.",
  "DELETE /delete": " The rows may have been deleted: “Refresh” shows it.",
};

// One request, with its failure in words.
async function ask(method, path, content) {
  const unsure = UNSURE[`${method} ${path}`];
  const sent = { method, signal: AbortSignal.timeout(PATIENCE_MS) };
  if (content) {
    sent.body = JSON.stringify(content);
    sent.headers = { "content-type": "application/json" };
  }
  let response;
  try {
    response = await fetch(path, sent);
  } catch (cause) {
    throw new Failure(cause.name === "TimeoutError"
      ? `The server took too long to answer.${unsure ?? " Try again in a moment."}`
      : `The server cannot be reached. Check that it runs, then try again.${unsure ?? ""}`);
  }
  last = response.headers.get("x-worker") ?? last;
  const body = await response.json().catch(() => ({}));
  if (body.workers) workers = new Map(body.workers.map(({ slot, requests }) => [String(slot), requests]));
  drawWorkers();
  if (response.ok) return body;
  const said = body.error ? `${body.error[0].toUpperCase()}${body.error.slice(1)}.`
    : `The server answered with status ${response.status}.`;
  if (response.status === 401 && path !== "/login") {
    know({ name: null, read: session.read && method !== "GET" });
    throw new Failure("You are not signed in any more. Sign in, then try again.");
  }
  if (response.status === 429) {
    const wait = Number(response.headers.get("retry-after"));
    throw new Failure(`Too many logins have failed. Try again in ${wait} s.`);
  }
  if (response.status === 504) throw new Failure(said + (unsure ?? ""));
  throw new Failure(response.status === 503 ? `${said} Try again in a moment.` : said);
}

// Shows what is known of the user.
function know(known) {
  Object.assign(session, known);
  const out = session.users && session.name === null;
  if (!out && view.signin.contains(document.activeElement)) view.populate.focus();
  view.signin.hidden = !out;
  view.told.textContent = session.read
    ? "The rows can be read without. Adding and deleting take a user."
    : "Reading, adding and deleting take a user.";
  if (session.name === null && view.session.contains(document.activeElement)) view.rows.focus();
  view.session.hidden = session.name === null;
  view.user.textContent = session.name ?? "";
  for (const button of [view.populate, view.erase]) {
    if (out) button.setAttribute("aria-describedby", "signin-text");
    else button.removeAttribute("aria-describedby");
  }
}

function mayWrite() {
  return !session.users || session.name !== null;
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
// Rows are being added, and how many are still to be.
let adding = false;
let wanted = 0;
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
    adding = false;
    wanted = 0;
    settle();
  }
}

function settle() {
  const [first, last] = [trail.length === 1, next === null];
  // A click while rows are added adds a further one.
  rest(view.populate, (busy && !adding) || !mayWrite());
  rest(view.refresh, busy || !session.read);
  rest(view.erase, busy || empty || !mayWrite());
  rest(view.enter, busy);
  rest(view.signout, busy);
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
    // Another client has deleted them meanwhile.
    trail.length = 1;
    return load(fresh);
  }
  next = page.next;
  show(page, fresh);
}

// A deed is done, also when it cannot be shown.
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
  view.body.replaceChildren(...rows.map((row) => line(row, fresh?.includes(row.data))));
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

// A bar for each worker that serves, with the requests that it has answered; the last one marked. A browser
// keeps its connection, so that one worker may answer all of this page's requests.
function drawWorkers() {
  const most = Math.max(1, ...workers.values());
  view.workers.replaceChildren(...[...workers].map(([slot, requests]) => {
    const item = document.createElement("li");
    if (slot === last) item.className = "last";
    const name = document.createElement("span");
    name.textContent = `worker ${slot}`;
    const bar = document.createElement("meter");
    bar.max = most;
    bar.value = requests;
    bar.setAttribute("aria-hidden", "true");
    const times = document.createElement("span");
    times.textContent = String(requests);
    item.append(name, bar, times);
    return item;
  }));
}

press(view.populate, () => {
  wanted += 1;
  if (adding) return say(`Adding ${wanted} more…`, "busy");
  adding = true;
  act("Adding a row…", async () => {
    const added = [];
    const told = () => `Added ${added.length > 1 ? `${added.length} rows` : added[0]}.`;
    let shown;
    // A click during the last of these requests is not forgotten either.
    while (wanted > 0) {
      try {
        while (wanted > 0) {
          wanted -= 1;
          added.push((await ask("POST", "/populate")).data);
        }
      } catch (failure) {
        if (!(failure instanceof Failure)) throw failure;
        const before = added.length > 0 ? `${told()} ` : "";
        const left = wanted > 0 ? ` ${wanted} more were not tried.` : "";
        throw new Failure(`${before}${failure.message}${left}`);
      }
      shown = await done(`${told()}${by(last)}`, added);
    }
    return shown;
  });
});

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

view.login.addEventListener("submit", (event) => {
  event.preventDefault();
  if (view.enter.getAttribute("aria-disabled") === "true") return;
  const [name, password] = [view.name.value, view.password.value];
  view.password.value = "";
  act("Signing in…", async () => {
    try {
      await ask("POST", "/login", { name, password });
    } catch (failure) {
      view.password.focus();
      throw failure;
    }
    know(await ask("GET", "/login"));
    return done(`Signed in as ${session.name}.`);
  });
});

press(view.signout, () => act("Signing out…", async () => {
  await ask("POST", "/logout");
  know(await ask("GET", "/login"));
  if (!session.read) hide();
  return "Signed out.";
}));

// Rows that may not be read any more do not stay on the screen.
function hide() {
  [next, empty, trail.length] = [null, true, 1];
  view.total.textContent = "–";
  view.body.replaceChildren();
  view.table.hidden = true;
  view.empty.hidden = false;
  view.empty.textContent = "Sign in to see the rows.";
}

act("Loading…", async () => {
  know(await ask("GET", "/login"));
  if (session.read) await load();
  else hide();
  return session.read ? `Ready.${by(last)}` : "Sign in to see the rows.";
});
