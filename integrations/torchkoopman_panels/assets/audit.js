// What each network gains or loses on each class against the first one; and all that was measured.

import { axes, legendItems, picture } from "./chart.js";
import { html, svg } from "./dom.js";
import { number } from "./numbers.js";

const CLASS_ROW = 30;
const AUDIT_MARGIN = { top: 10, right: 20, bottom: 40, left: 130 };
const SHAPES = [
  (x, y, look) => svg("circle", { ...look, cx: x, cy: y, r: 4.5 }),
  (x, y, look) => svg("rect", { ...look, x: x - 4, y: y - 4, width: 8, height: 8 }),
  (x, y, look) => svg("path", { ...look, d: `M${x} ${y - 5.5}L${x + 5} ${y + 4}L${x - 5} ${y + 4}Z` }),
  (x, y, look) => svg("path", { ...look, d: `M${x - 5} ${y}L${x} ${y - 5}L${x + 5} ${y}L${x} ${y + 5}Z` }),
];

function networkMark(k) {
  return (x, y) => SHAPES[k % SHAPES.length](x, y, { class: `k-dot k-tone-${k}` });
}

/** Linear within a percentage point of zero; beyond, each power of ten is as long. */
function bent(points) {
  const size = Math.abs(points);
  return Math.sign(points) * (size <= 1 ? size : 1 + Math.log10(size));
}

function signedTick(points) {
  return points ? `${points > 0 ? "+" : ""}${number(points)}` : "0";
}

/** Infinite are steps that did not come to an end within their limit. */
function measured(value, limit) {
  if (value === Infinity && limit !== undefined) return `> ${limit}`;
  return Number.isFinite(value) ? number(value, 4) : "–";
}

function measures(series, position) {
  const { block, about } = series;
  const body = about.measures.map((measure, row) => {
    const cells = about.networks.map((_, k) => block.cell(position, row * about.networks.length + k));
    return html("tr", {}, html("th", { scope: "row" }, measure), cells.map((cell) => html("td", {}, measured(cell, about.limit))));
  });
  const head = html("tr", {}, html("th", { scope: "col", class: "k-left" }, "measure"), about.networks.map((name) => html("th", { scope: "col" }, name)));
  return html("div", { class: "k-scroll", tabindex: "0", role: "region", "aria-label": "measures of the audit" }, html("table", {}, html("thead", {}, head), html("tbody", {}, body)));
}

function drawAudit(box, scene) {
  const { accuracy, audit } = scene.own;
  const { block, about } = accuracy;
  const height = AUDIT_MARGIN.top + AUDIT_MARGIN.bottom + about.classes.length * CLASS_ROW + 24;
  const root = picture(scene.width, height, "What each network gains or loses on each class");
  const below = html("div", {});
  const cell = (position, network, label, kind) => block.cell(position, (network * about.classes.length + label) * 2 + kind);
  const move = (step) => {
    const position = block.position(step);
    root.replaceChildren();
    const gone = new Set(about.forgotten.map(String));
    const [first, ...others] = about.networks;
    const points = (network, row) => 100 * (cell(position, network, row, 0) - cell(position, 0, row, 0));
    const every = others.flatMap((_, k) => about.classes.map((_label, row) => points(k + 1, row))).filter(Number.isFinite);
    const domain = [bent(Math.min(-1, ...every)) - 0.2, bent(Math.max(1, ...every)) + 0.2];
    const ticks = [-100, -10, -1, 0, 1, 10, 100].filter((tick) => bent(tick) >= domain[0] && bent(tick) <= domain[1]);
    const plane = axes(root, {
      width: scene.width,
      height: height - 24,
      margin: AUDIT_MARGIN,
      x: {
        domain,
        ticks: ticks.map((tick) => [bent(tick), signedTick(tick)]),
        label: `accuracy on unseen data, percentage points from the ${first} network's`,
      },
      y: {
        domain: [about.classes.length - 0.5, -0.5],
        ticks: about.classes.map((label, k) => [k, `${label}${gone.has(String(label)) ? " (forgotten)" : ""}`]),
      },
    });
    const zero = plane.x(0);
    plane.plot.append(svg("line", { class: "k-span", x1: zero, x2: zero, y1: plane.inner.top, y2: plane.inner.bottom }));
    about.classes.forEach((label, row) => {
      others.forEach((name, k) => {
        const change = points(k + 1, row);
        if (!Number.isFinite(change)) return;
        const y = plane.y(row + 0.6 * ((k + 0.5) / others.length - 0.5));
        const x = plane.x(bent(change));
        const look = `k-error k-tone-${k + 1}${gone.has(String(label)) ? " k-gone" : ""}`;
        plane.plot.append(svg("line", { class: look, x1: zero, x2: x, y1: y, y2: y }));
        const node = networkMark(k + 1)(x, y);
        const share = number(100 * cell(position, k + 1, row, 0), 4);
        node.append(svg("title", {}, `${name}, class ${label}: ${share} %, ${signedTick(change)} points`));
        root.append(node);
      });
    });
    legendItems(root, others.map((name, k) => ({ name, mark: networkMark(k + 1) })), { left: 20, top: height - 6, width: scene.width });
    below.replaceChildren(...(audit ? [measures(audit, audit.block.position(step))] : []));
  };
  box.append(root, below);
  move(scene.step);
  return {
    picture: root,
    move,
    table: () => {
      const rows = block.steps.flatMap((step, position) =>
        about.networks.flatMap((network, n) =>
          about.classes.flatMap((label, c) =>
            ["unseen", "training"].map((kind, k) => [step, network, `accuracy, class ${label}, ${kind}`, cell(position, n, c, k)]),
          ),
        ),
      );
      const more = (audit?.block.steps ?? []).flatMap((step, position) =>
        audit.about.measures.flatMap((measure, row) =>
          audit.about.networks.map((network, k) => [step, network, measure, audit.block.cell(position, row * audit.about.networks.length + k)]),
        ),
      );
      return { head: [scene.catalog.axis, "network", "measure", "value"], rows: [...rows, ...more] };
    },
  };
}

export const auditPanel = {
  key: "audit",
  title: "Forgetting",
  reads: (name) => ["accuracy", "audit"].includes(name),
  present: (series) => Boolean(series.accuracy),
  draw: drawAudit,
};
