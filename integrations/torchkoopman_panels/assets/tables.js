// Tables that a result is printed as, as they are: text in cells, sentences above and below.

import { html } from "./dom.js";

/** The head of a column; one without a name heads nothing. */
function headed(cell, attributes) {
  return cell ? html("th", { scope: "col", ...attributes }, cell) : html("td", attributes, "\u00a0");
}

/** One table of a result, as a panel of its own. */
export function tablePanel(name) {
  return {
    key: name,
    title: name.slice("table:".length),
    reads: (each) => each === name,
    present: (series) => Boolean(series[name]),
    entitled: (series) => series[name].about.title,
    draw: (box, scene) => {
      const { title, head, rows, text = [0], above = [], below = [] } = scene.own[name].about;
      const side = (k) => (text.includes(k) ? "k-left" : "k-right");
      const sentences = (lines) => lines.map((line) => html("p", { class: "k-sentence" }, line));
      const columns = html("tr", {}, head.map((cell, k) => headed(cell, { class: side(k) })));
      const body = rows.map((row) => html("tr", {}, row.map((cell, k) => html("td", { class: side(k) }, cell))));
      box.append(
        ...sentences(above),
        html(
          "div",
          { class: "k-scroll", tabindex: "0", role: "region", "aria-label": `table: ${title}` },
          html("table", {}, html("thead", {}, columns), html("tbody", {}, body)),
        ),
        ...sentences(below),
      );
      return { picture: null, table: () => ({ head, rows }) };
    },
  };
}
