// The page's behaviour: it asks for status.json each second and shows what has changed. Text from the
// server is only ever set as text: the Content-Security-Policy forbids anything else.
"use strict";

const INTERVAL_MS = 1000;
const TIMEOUT_MS = 5000;
const LOAD_MS = 5 * 60 * 1000;
const LIVES_MS = 10 * 60 * 1000;
// The master has not written for so long: it is stopped, or has much to do.
const STALE_SECONDS = 2;

const at = (id) => document.getElementById(id);
// Sections need this script, and what they show.
const sections = ["pause", "server", "load", "workers", "queues", "news"];

const plots = {
  rate: new Plot(at("plots"), "Requests a second", [""], (number) => number.toFixed(1)),
  duration: new Plot(at("plots"), "Latency", ["median ", "99 % "], span),
  wait: new Plot(at("plots"), "Queue wait", ["median ", "99 % "], span),
};

// Lives of workers by pid: what this page has seen itself, and what the events say of the time before.
const lives = new Map();
let before = null;
let paused = false;
let timer = null;

// A length of time in words.
function span(seconds) {
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}

function bytes(number) {
  return number === null ? "–" : `${(number / 1048576).toFixed(0)} MiB`;
}

// The value below which this share of the observations between two histograms lies, by interpolation in
// its bucket; null without any.
function quantile(share, { bounds_seconds: bounds, counts }, earlier) {
  const grown = counts.map((count, at) => Math.max(0, count - earlier.counts[at]));
  let left = share * grown.reduce((sum, count) => sum + count, 0);
  if (left === 0) return null;
  for (const [at, count] of grown.entries()) {
    if (left <= count) {
      const low = at === 0 ? 0 : bounds[at - 1];
      const high = bounds[at] ?? low;
      return low + (high - low) * left / count;
    }
    left -= count;
  }
  return bounds.at(-1);
}

function clock(time) {
  return new Date(time).toLocaleTimeString([], { hourCycle: "h23" });
}

const sum = (numbers) => Object.values(numbers).reduce((all, number) => all + number, 0);

function drawLoad(now, status) {
  // After a start the counters begin anew.
  const known = before !== null && sum(status.requests) >= sum(before.status.requests);
  const seconds = known ? (now - before.now) / 1000 : 0;
  // A pause is a gap, not a long second.
  const usable = seconds > 0 && seconds < 10;
  const rate = usable ? (sum(status.requests) - sum(before.status.requests)) / seconds : null;
  const pair = (name) => [0.5, 0.99].map((share) =>
    usable ? quantile(share, status[name], before.status[name]) : null);
  plots.rate.add(now, [rate], LOAD_MS);
  plots.duration.add(now, pair("request_duration"), LOAD_MS);
  plots.wait.add(now, pair("queue_wait"), LOAD_MS);
}

// The life of a worker; a pid may have been another one's in another slot.
function life(slot, pid, from) {
  const known = lives.get(pid);
  if (known && known.slot === slot) return known;
  const born = { slot, pid, from, ready: null, draining: null, to: null, failed: false };
  lives.set(pid, born);
  return born;
}

function learn(now, { workers, events }) {
  for (const { event, time, fields } of events) {
    const [pid, when] = [fields.process_pid, Date.parse(time)];
    if (fields.slot === undefined || pid === undefined || now - when > LIVES_MS) continue;
    if (event === "process_forked") life(fields.slot, pid, when);
    if (event === "worker_ready") {
      life(fields.slot, pid, when - fields.boot_seconds * 1000).ready ??= when;
    }
    if (event === "worker_exited") {
      // One without a beginning among the events has lived since before them.
      const ended = life(fields.slot, pid, now - LIVES_MS);
      ended.ready ??= ended.from;
      ended.to ??= when;
      ended.failed = fields.ending !== "stopped";
    }
  }
  for (const { slot, pid, state, age_seconds: age } of workers) {
    if (pid === null) continue;
    const own = life(slot, pid, now - age * 1000);
    if (state !== "booting") own.ready ??= own.from;
    if (state !== "booting" && state !== "serving") own.draining ??= now;
  }
  const living = new Set(workers.map(({ pid }) => pid));
  for (const [pid, own] of lives) {
    if (!living.has(pid)) own.to ??= now;
    if (own.to !== null && now - own.to > LIVES_MS) lives.delete(pid);
  }
}

function spans(own, now) {
  const end = own.to ?? now;
  const marks = [[own.from, "booting"], [own.ready, "serving"], [own.draining, "draining"]];
  const known = marks.filter(([from]) => from !== null && from <= end);
  const found = known.map(([from, state], at) => ({ from, to: known[at + 1]?.[0] ?? end, state }))
    .filter(({ from, to }) => to > from && to > now - LIVES_MS);
  // The end of one that failed is marked.
  if (own.failed) found.push({ from: end - 1000, to: end, state: "failed" });
  return found;
}

// Sets the children of an element to one for each item, and keeps those elements that are there.
function list(parent, name, items, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(document.createElement(name));
  items.forEach((item, at) => fill(parent.children[at], item));
}

function cells(row, texts) {
  list(row, "td", texts, (cell, text) => {
    if (cell.textContent !== text) cell.textContent = text;
  });
}

function drawServer({ server, reload }) {
  at("title").textContent = `${server.program} ${server.version}`;
  at("subtitle").textContent = server.addresses.join(", ");
  document.title = `${server.state} – ${server.program}`;
  at("state").textContent = `${server.state}: ${server.workers_serving} of ${server.workers_wanted} `
    + `workers serve, generation ${server.generation}, up ${span(server.uptime_seconds)}, `
    + `${server.requests_total.toLocaleString("en")} requests answered`;
  at("reload").hidden = reload === null;
  if (reload !== null) {
    at("reload-text").textContent = `Reload to generation ${reload.generation}: `
      + `${reload.replaced} of ${reload.of} slots replaced`;
    at("progress").max = reload.of;
    at("progress").value = reload.replaced;
  }
  at("last-reload").textContent = server.last_reload
    ? `Last reload, ${new Date(server.last_reload.time).toLocaleString()}: ${server.last_reload.message}` : "";
}

function drawWorkers(now, { workers }) {
  list(at("rows"), "tr", workers, (row, it) => cells(row, [
    String(it.slot), String(it.pid ?? "–"), it.state, String(it.generation), span(it.age_seconds),
    it.slot_requests_total.toLocaleString("en"), String(it.requests_in_flight), String(it.connections),
    String(it.queue_length), bytes(it.memory_bytes),
    it.cpu_seconds === null ? "–" : `${it.cpu_seconds.toFixed(1)} s`,
  ]));
  const ends = new Map(workers.filter((it) => it.last_end).map((it) => [it.slot, it.last_end]));
  list(at("ends"), "li", [...ends], (item, [slot, end]) => {
    item.textContent = `slot ${slot}, last end, ${clock(end.time)}: ${end.message}`;
  });
  const drawn = [...lives.values()].map((own) => ({ ...own, spans: spans(own, now) }));
  const oldest = now - Math.min(...drawn.map(({ from }) => from));
  const width = Math.min(LIVES_MS, Math.max(oldest, LIVES_MS / 10));
  drawLives(at("lives"), drawn.filter((own) => own.spans.length > 0), now, width);
}

function drawOthers({ queues, events }) {
  list(at("addresses"), "li", queues, (item, { address, length }) => {
    item.textContent = `${address}: ${length} ${length === 1 ? "connection waits" : "connections wait"}`;
  });
  list(at("events"), "li", [...events].reverse(), (item, { time, level, message, serial }) => {
    if (item.dataset.serial === String(serial)) return;
    item.dataset.serial = serial;
    const stamp = document.createElement("time");
    stamp.dateTime = time;
    stamp.textContent = clock(time);
    const text = document.createElement("span");
    text.className = level;
    text.textContent = level === "info" || level === "debug" ? message : `${level}: ${message}`;
    item.replaceChildren(stamp, text);
  });
}

function say(text, kind = "") {
  const notice = at("notice");
  notice.className = `notice ${kind}`;
  // A screen reader says what changes, and nothing again.
  if (notice.textContent !== text) notice.textContent = text;
}

async function look() {
  try {
    const response = await fetch("status.json", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const status = await response.json();
    // The server's clock, which the events have too.
    const now = Date.parse(status.time);
    for (const id of sections) at(id).hidden = false;
    learn(now, status);
    drawLoad(now, status);
    drawServer(status);
    drawWorkers(now, status);
    drawOthers(status);
    before = { now, status };
    const age = status.snapshot_age_seconds;
    if (age > STALE_SECONDS) say("The master does not answer; its numbers are old.", "error");
    else say("Live.");
  } catch (cause) {
    at("server").hidden = false;
    const network = cause.name === "TypeError" || cause.name === "TimeoutError";
    if (!network) console.error(cause);
    say(network ? "The server cannot be reached; trying again each second."
      : "The status cannot be shown; trying again each second.", "error");
  }
}

// One look after the other; none while the page is hidden.
async function run() {
  clearTimeout(timer);
  timer = null;
  if (paused || document.hidden) return;
  await look();
  if (!paused && timer === null) timer = setTimeout(run, INTERVAL_MS);
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").textContent = paused ? "Resume" : "Pause";
  if (paused) say("Paused.", "quiet");
  else run();
});
document.addEventListener("visibilitychange", run);
run();
