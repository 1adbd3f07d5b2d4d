// The foot of the page: notes of the fit, what is missing, how numbers were rounded, steps left out.

import { html } from "./dom.js";
import { number } from "./numbers.js";

const EXACT = 1e-6; // relative; float32 itself rounds by less

/** Nodes on the series shown; missing has [panel, the call that would add it] for each panel that is not. */
export function footOf(series, missing) {
  const items = missing.map(([panel, call]) => html("li", {}, `${panel.title}: `, html("code", {}, call)));
  const absent = items.length
    ? [html("details", {}, html("summary", {}, "What is not here, and the call that adds it"), html("ul", {}, items))]
    : [];
  const notes = series.notes?.about.notes ?? [];
  const paragraphs = (texts) => texts.map((text) => html("p", { class: "k-sentence" }, text));
  return [...paragraphs(notes), ...absent, ...paragraphs(precisionOf(series))];
}

/** Sentences on what was rounded and on steps that were left out, where any were. */
function precisionOf(series) {
  const blocks = Object.entries(series).filter(([, { block }]) => block.size);
  const rounding = blocks
    .map(([name, { block }]) => [name, [block.error].flat()])
    .filter(([, errors]) => Math.max(...errors) > EXACT)
    .map(([name, errors]) => {
      const percents = [...new Set(errors.filter((each) => each > EXACT).map((each) => number(100 * each, 1)))];
      return `${name} by at most ${percents.join(" or ")} %${percents.length > 1 ? ", by column" : ""}`;
    });
  const thinned = blocks
    .filter(([, { block }]) => block.of > block.steps.length)
    .map(([name, { block }]) => `${name} at ${block.steps.length} of ${block.of} steps`);
  const sampled = blocks.filter(([, { block }]) => block.of === null).map(([, { block }]) => block.steps.length);
  const sentences = [
    sampled.length
      ? `TensorBoard keeps ${Math.max(...sampled)} steps of a series, chosen at random where there are more; ` +
        "started with --samples_per_plugin koopman=0 it keeps all."
      : "",
    rounding.length ? `Values are rounded: ${rounding.join("; ")} of each value.` : "",
    thinned.length ? `Steps are left out: ${thinned.join("; ")}.` : "",
  ];
  return sentences.filter(Boolean);
}
