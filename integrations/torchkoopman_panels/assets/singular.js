// Singular values of the operator at the current step, largest first, on a logarithmic axis.

import { axes, drawLines, legendItems, picture } from "./chart.js";
import { extent, number } from "./numbers.js";

const SINGULAR_HEIGHT = 300;
const SMALLEST_SHARE = 1e-8;

function singularRuns(scene) {
  return [[scene.own, 0, scene.choices.run], [scene.other, 1, scene.choices.other]].filter(
    ([series]) => series?.singular_values,
  );
}

function drawSingular(box, scene) {
  const root = picture(scene.width, SINGULAR_HEIGHT, "Singular values of the operator");
  const runs = singularRuns(scene);
  const largest = Math.max(...runs.map(([{ singular_values: { block } }]) => extent(block.values)[1]));
  const least = Math.min(...runs.map(([{ singular_values: { block } }]) => extent(block.values.map((value) => value || NaN), [largest, largest])[0]));
  const count = Math.max(...runs.map(([{ singular_values: { block } }]) => block.size));
  const move = (step) => {
    root.replaceChildren();
    const plane = axes(root, {
      width: scene.width,
      height: SINGULAR_HEIGHT - 18,
      x: { domain: [1, Math.max(2, count)], label: "singular value", whole: true },
      y: { domain: [Math.max(least, largest * SMALLEST_SHARE), largest], log: true, label: "size" },
    });
    const texts = runs.map(([series, tone, run]) => {
      const { block } = series.singular_values;
      const values = block.array(block.position(step));
      const points = [...values].map((value, k) => [k + 1, value]);
      drawLines(plane, [{ points, tone, dots: values.length <= 80, dashed: tone > 0 }]);
      const total = values.reduce((sum, value) => sum + (value > 0 ? value : 0), 0);
      const entropy = values.reduce((sum, value) => sum - (value > 0 ? (value / total) * Math.log(value / total) : 0), 0);
      return `${scene.other ? `${run}: ` : ""}effective rank ${number(Math.exp(entropy))} of ${values.filter(Number.isFinite).length}`;
    });
    legendItems(
      root,
      runs.length > 1 ? runs.map(([, tone, run]) => ({ tone, dashed: tone > 0, name: run })) : [],
      { left: plane.inner.left, top: SINGULAR_HEIGHT - 6, width: scene.width },
    );
    scene.note(`${texts.join("; ")} (exponential of the entropy of their shares).`);
  };
  box.append(root);
  move(scene.step);
  return {
    picture: root,
    move,
    table: () => ({
      head: ["run", scene.catalog.axis, "number", "singular value"],
      rows: runs.flatMap(([{ singular_values: { block } }, , run]) =>
        block.steps.flatMap((step, position) => [...block.array(position)].map((value, k) => [run, step, k + 1, value])),
      ),
    }),
  };
}

export const singularPanel = {
  key: "singular",
  title: "Singular values",
  reads: (name) => name === "singular_values",
  present: (series) => Boolean(series.singular_values),
  draw: drawSingular,
};
