// R² of each layer and the losses: through the steps, and by depth at the current one.

import { axes, drawLines, legendItems, namedTicks, picture, stepCursor } from "./chart.js";
import { extent, number } from "./numbers.js";

const QUALITY_HEIGHT = 250;
const TONES = 6;

/** Layers after the first, whether a series says all of them or those that it has values for. */
function scoredLayers({ about, block }) {
  const layers = about.layers ?? [];
  return Array.from({ length: block.size }, (_, k) => layers[layers.length - block.size + k] ?? String(k + 1));
}

function byDepth(root, top, scene) {
  const runs = [[scene.own, 0, scene.choices.run], [scene.other, 1, scene.choices.other]].filter(([series]) => series?.r2);
  const layers = scoredLayers(runs[0][0].r2);
  const all = runs.flatMap(([{ r2 }]) => [...r2.block.values]);
  const bottom = Math.max(-1, Math.min(0.5, extent(all)[0]));
  const group = root.appendChild(root.ownerDocument.createElementNS(root.namespaceURI, "g"));
  return (step) => {
    group.replaceChildren();
    const every = Math.ceil(layers.length / Math.max(2, Math.floor(scene.width / 60)));
    const ticks = layers.map((layer, k) => [k, layer]).filter(([k]) => k % every === 0);
    const plane = axes(group, {
      top,
      width: scene.width,
      height: QUALITY_HEIGHT,
      x: { domain: [-0.3, layers.length - 0.7], ticks, label: runs[0][0].r2.about.of ?? "layer" },
      y: { domain: [bottom, 1], label: "R²" },
    });
    runs.forEach(([{ r2 }, tone]) => {
      const values = r2.block.array(r2.block.position(step));
      const points = [...values].map((value, k) => [k, value]);
      // Ways of predicting, unlike layers, have no order that a line could follow.
      const line = { points, tone, dashed: tone > 0, dots: true, bare: Boolean(r2.about.of) };
      drawLines(plane, [line]);
    });
  };
}

function bySteps(box, root, top, scene, series, names, axis) {
  const { block } = series;
  const finite = [...block.values].filter((value) => Number.isFinite(value) && (!axis.log || value > 0));
  const [low, high] = extent(finite);
  const plane = axes(root, {
    top,
    width: scene.width,
    height: QUALITY_HEIGHT,
    x: { domain: extent(block.steps), label: scene.catalog.axis, ticks: namedTicks(scene, block.steps) },
    y: { domain: axis.log ? [low, high] : [Math.max(-1, low), Math.min(1, high)], ...axis },
  });
  const known = names.map((name, k) => [name, block.course(k)]).filter(([, course]) => course.some(Number.isFinite));
  known.forEach(([, course], k) => {
    const points = [...course].map((value, position) => [block.steps[position], value]);
    drawLines(plane, [{ points, tone: k % TONES, dashed: k >= TONES }]);
  });
  const bottom = legendItems(
    root,
    known.map(([name], k) => ({ tone: k % TONES, dashed: k >= TONES, name })),
    { left: plane.inner.left, top: top + QUALITY_HEIGHT + 6, width: plane.inner.right - plane.inner.left },
  );
  return { move: stepCursor(plane, scene, box), bottom: bottom + 14 };
}

function drawQuality(box, scene) {
  const root = picture(scene.width, 10, "R² of each layer, and losses");
  const { r2, losses } = scene.own;
  const moves = [];
  let top = 0;
  if (r2) {
    moves.push(byDepth(root, top, scene));
    top += QUALITY_HEIGHT;
    if (r2.block.steps.length > 1) {
      const made = bySteps(box, root, top, scene, r2, scoredLayers(r2), { label: "R²" });
      moves.push(made.move);
      top = made.bottom;
    }
  }
  if (losses && losses.block.steps.length > 1) {
    const made = bySteps(box, root, top, scene, losses, losses.about.terms ?? [], { label: "loss", log: true });
    moves.push(made.move);
    top = made.bottom;
  }
  root.setAttribute("height", top);
  root.setAttribute("viewBox", `0 0 ${scene.width} ${top}`);
  box.append(root);
  const move = (step) => {
    moves.forEach((each) => each(step));
    const last = losses && losses.block.array(losses.block.position(step));
    const terms = losses?.about.terms ?? [];
    scene.note(last ? `Losses: ${terms.map((term, k) => `${term} ${number(last[k])}`).join(", ")}.` : "");
  };
  move(scene.step);
  return {
    picture: root,
    move,
    table: () => {
      const rows = [];
      for (const [series, run] of [[scene.own, scene.choices.run], [scene.other, scene.choices.other]]) {
        for (const [name, labels] of [["r2", series?.r2 && scoredLayers(series.r2)], ["losses", series?.losses?.about.terms]]) {
          if (!series?.[name] || !labels) continue;
          const { block } = series[name];
          block.steps.forEach((step, position) => {
            labels.forEach((label, k) => rows.push([run, step, name === "r2" ? "R²" : "loss", label, block.cell(position, k)]));
          });
        }
      }
      return { head: ["run", scene.catalog.axis, "quantity", "of", "value"], rows };
    },
  };
}

export const qualityPanel = {
  key: "quality",
  title: "Quality by layer, and losses",
  reads: (name) => ["r2", "losses"].includes(name),
  cursor: true,
  present: (series) => Boolean(series.r2 || (series.losses && series.losses.block.steps.length > 1)),
  draw: drawQuality,
};
