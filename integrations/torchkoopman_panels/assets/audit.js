// Accuracy of each class before and after an edit, in pairs; and all that the audit measured.

import { axes, legendItems, picture } from "./chart.js";
import { html, svg } from "./dom.js";
import { number } from "./numbers.js";

const CLASS_ROW = 26;
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

function measures(series, position) {
  const { block, about } = series;
  const body = about.measures.map((measure, row) => {
    const cells = about.networks.map((_, k) => block.cell(position, row * about.networks.length + k));
    return html("tr", {}, html("th", { scope: "row" }, measure), cells.map((cell) => html("td", {}, Number.isFinite(cell) ? number(cell, 4) : "–")));
  });
  const head = html("tr", {}, html("th", { scope: "col" }, "measure"), about.networks.map((name) => html("th", { scope: "col" }, name)));
  return html("div", { class: "k-scroll", tabindex: "0", role: "region", "aria-label": "measures of the audit" }, html("table", {}, html("thead", {}, head), html("tbody", {}, body)));
}

function drawAudit(box, scene) {
  const { accuracy, audit } = scene.own;
  const { block, about } = accuracy;
  const height = AUDIT_MARGIN.top + AUDIT_MARGIN.bottom + about.classes.length * CLASS_ROW + 24;
  const root = picture(scene.width, height, "Accuracy of each class in each network");
  const below = html("div", {});
  const cell = (position, network, label, kind) => block.cell(position, (network * about.classes.length + label) * 2 + kind);
  const move = (step) => {
    const position = block.position(step);
    root.replaceChildren();
    const gone = new Set(about.forgotten.map(String));
    const plane = axes(root, {
      width: scene.width,
      height: height - 24,
      margin: AUDIT_MARGIN,
      x: { domain: [0, 100], label: "accuracy on unseen data, %" },
      y: {
        domain: [about.classes.length - 0.5, -0.5],
        ticks: about.classes.map((label, k) => [k, `${label}${gone.has(String(label)) ? " (forgotten)" : ""}`]),
      },
    });
    about.classes.forEach((label, row) => {
      const values = about.networks.map((_, network) => 100 * cell(position, network, row, 0));
      const y = plane.y(row);
      const [low, high] = [Math.min(...values.filter(Number.isFinite)), Math.max(...values.filter(Number.isFinite))];
      plane.plot.append(svg("line", { class: gone.has(String(label)) ? "k-span k-gone" : "k-span", x1: plane.x(low), x2: plane.x(high), y1: y, y2: y }));
      values.forEach((value, network) => {
        if (!Number.isFinite(value)) return;
        const node = networkMark(network)(plane.x(value), y);
        node.append(svg("title", {}, `${about.networks[network]}, class ${label}: ${number(value, 4)} %`));
        root.append(node);
      });
    });
    legendItems(root, about.networks.map((name, k) => ({ name, mark: networkMark(k) })), { left: 20, top: height - 6, width: scene.width });
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
