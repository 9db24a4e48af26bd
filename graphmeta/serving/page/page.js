// Ids and names come from data: they are only ever set as text.
import { arrow, circle, inWords, moves, request, sessionGraph, shortened, tables } from "./logic.js";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const K = 10;
let clicks = [], shown = 0, searched = 0;

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function button(text, label, action) {
  const made = element("button", text, { type: "button", "aria-label": label });
  made.addEventListener("click", action);
  return made;
}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if ($("token").value) headers.Authorization = `Bearer ${$("token").value}`;
  const response = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  if (response.status === 401) $("access").open = true;
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
  return answer;
}

function say(text, failed = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", failed);
}

async function describe() {
  try {
    const model = await ask("/model");
    $("model").textContent = `${model.system}, version ${model.version}: ${model.items.toLocaleString("en")} items`;
    $("user").disabled = !(model.reads_users || model.reads_history);
    $("user-note").textContent = $("user").disabled ? "This model does not read users." : "";
    const adapting = model.adapts || model.reads_history;
    $("before-title").textContent = adapting ? "Before adapting" : "Without adapting (this model does not adapt)";
  } catch (error) {
    $("model").textContent = error.message;
  }
}

async function search() {
  const turn = (searched += 1), query = $("query").value.trim();
  const found = query === "" ? [] : (await ask(`/items?query=${encodeURIComponent(query)}&limit=8`)).items;
  if (turn !== searched) return;
  $("found").replaceChildren(...found.map((one) => {
    const row = element("li");
    row.append(element("span", one.name, { class: "name" }), button("Add", `Add ${one.name} to the session`, () => add(one)));
    return row;
  }));
  if (query !== "" && found.length === 0) $("found").append(element("li", "No item has these words in its name."));
}

function add({ item, name }) {
  clicks = [...clicks, { item, name }];
  update();
}

function remove(place) {
  clicks = clicks.filter((_, at) => at !== place);
  update();
  ($("session").querySelectorAll("button")[Math.min(place, clicks.length - 1)] ?? $("query")).focus();
}

function drawSession() {
  $("empty").hidden = clicks.length > 0;
  $("clear").hidden = clicks.length === 0;
  $("session").replaceChildren(...clicks.map(({ name }, at) => {
    const row = element("li");
    row.append(element("span", name, { class: "name" }), button("Remove", `Remove click ${at + 1}, ${name}`, () => remove(at)));
    return row;
  }));
}

function svg(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function drawGraph() {
  $("graph").replaceChildren();
  const { nodes, edges } = sessionGraph(clicks);
  const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
  $("graph-text").textContent = nodes.length === 0 ? "" : `${plural(nodes.length, "item")}, ${plural(edges.length, "transition")}`;
  if (nodes.length === 0) return;
  const width = 360, height = 260, size = 8, at = circle(nodes.length, width, height, 48);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": "graph-title graph-text" });
  const marker = svg("marker", { id: "head", viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" });
  marker.append(svg("path", { d: "M 0 0 L 8 4 L 0 8 z" }));
  const definitions = svg("defs", {});
  definitions.append(marker);
  picture.append(definitions);
  for (const { from, to, count } of edges) {
    const width = Math.min(4, count);
    picture.append(svg("path", { d: arrow(at[from], at[to], size), class: "arrow", "stroke-width": width, "marker-end": "url(#head)" }));
  }
  nodes.forEach(({ name }, number) => {
    const { x, y } = at[number];
    const node = svg("g", {});
    node.append(svg("title", {}, name), svg("circle", { cx: x, cy: y, r: size }));
    node.append(svg("text", { x, y: y + (y < height / 2 ? -14 : 22) }, shortened(name, 22)));
    picture.append(node);
  });
  $("graph").append(picture);
}

function ranking(list, found, changes, why) {
  list.replaceChildren(...found.map((one, at) => {
    const row = element("li"), change = changes?.[at];
    row.append(element("span", one.name, { class: "name" }));
    if (changes) {
      const kind = change === null || change > 0 ? "up" : change < 0 ? "down" : "same";
      row.append(element("span", `(${inWords(change)}) `, { class: `moved ${kind}` }));
    }
    row.append(button("Add", `Add ${one.name} to the session`, () => add(one)));
    if (why) row.append(" ", button("Why?", `Why ${one.name}?`, () => explain(one)));
    return row;
  }));
}

async function recommend() {
  const turn = (shown += 1), user = $("user").value.trim();
  $("why").hidden = true;
  if (clicks.length === 0 && user === "") {
    ranking($("before"), []);
    ranking($("after"), []);
    say("Add an item to the session to see recommendations.");
    return;
  }
  say("Computing …");
  const k = K;
  const [before, after] = await Promise.allSettled([false, true].map((adapt) => ask("/recommend", request(clicks, user, adapt, k))));
  if (turn !== shown) return;
  if (after.status === "rejected") throw after.reason;
  const first = before.status === "fulfilled" ? before.value.items : [];
  ranking($("before"), first);
  ranking($("after"), after.value.items, moves(first, after.value.items), true);
  const known = after.value.user_known;
  $("user-note").textContent = user === "" || known !== false ? "" : "This user is unknown to the model.";
  const { items, reason, version } = after.value;
  say(items.length ? `${items.length} recommendations, from version ${version} of the model.` : `No recommendation: ${reason}.`);
}

async function explain(one) {
  const { session, user } = request(clicks, $("user").value.trim(), true, 1);
  const found = await ask("/explain", user === undefined ? { session, item: one.item } : { session, item: one.item, user }).catch((error) => {
    say(error.message, true);
  });
  if (!found) return;
  $("why-title").textContent = `Why ${found.name}? Score ${found.score.toFixed(3)}`;
  $("shares").replaceChildren(...tables(found).map(({ title, rows }) => {
    const table = element("table"), body = element("tbody");
    table.append(element("caption", title));
    for (const { name, value, share } of rows) {
      const row = element("tr"), cell = element("td", "", { class: "share", "aria-hidden": "true" });
      const bar = element("span", "", { class: value < 0 ? "bar negative" : "bar" });
      bar.style.width = `${(100 * share).toFixed(1)}%`;
      cell.append(bar);
      row.append(element("th", name, { scope: "row", class: "name" }), element("td", value.toFixed(3), { class: "number" }), cell);
      body.append(row);
    }
    table.append(body);
    return table;
  }));
  $("why").hidden = false;
  $("why").focus();
}

function update() {
  drawSession();
  drawGraph();
  recommend().catch((error) => say(error.message, true));
}

function delayed(action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(() => action().catch((error) => say(error.message, true)), 250);
  };
}

$("query").addEventListener("input", delayed(search));
$("user").addEventListener("input", delayed(recommend));
$("token").addEventListener("change", () => describe().then(update));
$("clear").addEventListener("click", () => {
  clicks = [];
  update();
  $("query").focus();
});
describe().then(update);
