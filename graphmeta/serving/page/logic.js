// Functions of the page that touch neither the document nor the network.

/** The distinct items of a session in order of their first click, and how often one follows another. */
export function sessionGraph(clicks) {
  const nodes = [], place = new Map(), edges = new Map();
  const indices = clicks.map(({ item, name }) => {
    const key = `${typeof item}:${item}`;
    if (!place.has(key)) {
      place.set(key, nodes.length);
      nodes.push({ item, name, clicks: 0 });
    }
    nodes[place.get(key)].clicks += 1;
    return place.get(key);
  });
  for (let at = 1; at < indices.length; at += 1) {
    const key = `${indices[at - 1]}>${indices[at]}`;
    const edge = edges.get(key) ?? { from: indices[at - 1], to: indices[at], count: 0 };
    edges.set(key, { ...edge, count: edge.count + 1 });
  }
  return { nodes, edges: [...edges.values()] };
}

/** Positions of nodes on a circle, the first at the top, in clockwise order. */
export function circle(count, width, height, margin) {
  const radius = Math.min(width, height) / 2 - margin;
  return Array.from({ length: count }, (_, at) => {
    const angle = (2 * Math.PI * at) / count - Math.PI / 2;
    const r = count === 1 ? 0 : radius;
    return { x: width / 2 + r * Math.cos(angle), y: height / 2 + r * Math.sin(angle) };
  });
}

/** The path of an arrow between two positions: curved, so that both directions can be seen; a loop at one position. */
export function arrow(from, to, size) {
  const dx = to.x - from.x, dy = to.y - from.y, length = Math.hypot(dx, dy);
  const f = (value) => value.toFixed(1);
  if (length < 1e-6) {
    return `M ${f(from.x - size)} ${f(from.y)} c ${f(-2.5 * size)} ${f(-3 * size)} ${f(4.5 * size)} ${f(-3 * size)} ${f(2 * size)} 0`;
  }
  const ux = dx / length, uy = dy / length, bend = 0.15 * length;
  const a = { x: from.x + ux * size, y: from.y + uy * size };
  const b = { x: to.x - ux * (size + 5), y: to.y - uy * (size + 5) };
  return `M ${f(a.x)} ${f(a.y)} Q ${f((a.x + b.x) / 2 - uy * bend)} ${f((a.y + b.y) / 2 + ux * bend)} ${f(b.x)} ${f(b.y)}`;
}

/** How each item of a ranking moved from an earlier one: places up (positive) or down, null for one that is new. */
export function moves(before, after) {
  return after.map(({ item }, at) => {
    const was = before.findIndex((one) => one.item === item);
    return was < 0 ? null : was - at;
  });
}

/** A move in words. */
export function inWords(move) {
  if (move === null) return "new in the list";
  if (move === 0) return "same place";
  return `${Math.abs(move)} ${Math.abs(move) === 1 ? "place" : "places"} ${move > 0 ? "up" : "down"}`;
}

/** The rows of an explanation: tables of names and values, with the share of the largest value for bars. */
export function tables(explanation) {
  const table = (title, rows) => {
    const most = Math.max(1e-12, ...rows.map(({ value }) => Math.abs(value)));
    return { title, rows: rows.map((row) => ({ ...row, share: Math.abs(row.value) / most })) };
  };
  const named = (values) => Object.entries(values).map(([name, value]) => ({ name, value }));
  const found = [table("By click, oldest first", [
    { name: "(without clicks)", value: explanation.without_clicks }, ...explanation.clicks])];
  if (explanation.without_history !== null && explanation.without_history !== undefined) {
    found.push(table("By earlier session, oldest first", [
      { name: "(without history)", value: explanation.without_history }, ...explanation.sessions]));
  }
  if (explanation.neighbours?.length) {
    found.push(table("By neighbour, the largest share first", explanation.neighbours));
  }
  found.push(table("By part of the model", named(explanation.parts)));
  if (Object.keys(explanation.attributes).length) {
    found.push(table("The product, by what the item's vector is made of", named(explanation.attributes)));
  }
  return found;
}

/** A text of at most so many characters; characters outside the basic plane are not cut in two. */
export function shortened(text, most) {
  const letters = [...text];
  return letters.length <= most ? text : `${letters.slice(0, most - 1).join("")}…`;
}

/** The body of a request to /recommend. */
export function request(clicks, user, adapt, k) {
  const body = { session: clicks.map(({ item }) => item), k, adapt, exclude_seen: true };
  return user === "" ? body : { ...body, user };
}
