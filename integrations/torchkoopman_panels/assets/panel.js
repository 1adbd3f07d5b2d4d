// The frame of a panel: its title, its files to download, a note, and what points at a mode.

import { csvText, save, svgText } from "./download.js";
import { html } from "./dom.js";

const FILE_NAME = /[^\w.-]+/g;

/** A box with a few lines beside a point of a picture. */
export class Tip {
  constructor(root) {
    this.node = html("div", { class: "k-tip", hidden: true });
    root.append(this.node);
    this.root = root;
  }

  show(picture, x, y, lines) {
    this.node.replaceChildren(...lines.map((line) => html("div", {}, line)));
    this.node.hidden = false;
    const bounds = picture.getBoundingClientRect();
    const outer = this.root.getBoundingClientRect();
    const factor = bounds.width / picture.viewBox.baseVal.width;
    const left = bounds.left - outer.left + x * factor;
    const width = this.node.offsetWidth;
    const right = left + 14 + width > outer.width;
    this.node.style.left = `${Math.max(0, right ? left - width - 14 : left + 14)}px`;
    this.node.style.top = `${bounds.top - outer.top + y * factor + 8}px`;
  }

  hide() {
    this.node.hidden = true;
  }
}

/** One panel on the page. It is drawn anew when its data change, and moved when the step does. */
export class Frame {
  constructor(definition, scenery) {
    this.definition = definition;
    this.scenery = scenery;
    this.drawn = null;
    const id = `k-${definition.key.replace(FILE_NAME, "-")}`;
    this.heading = html("h2", { id }, definition.title);
    this.body = html("div", { class: "k-body" });
    this.remark = html("p", { class: "k-note" });
    this.told = html("div", { class: "k-told" });
    this.svgButton = html("button", { type: "button", onclick: () => this.saveSvg() }, "SVG");
    this.csvButton = html("button", { type: "button", onclick: () => this.saveCsv() }, "CSV");
    this.svgButton.setAttribute("aria-label", `Save ${definition.title} as SVG`);
    this.csvButton.setAttribute("aria-label", `Save ${definition.title} as CSV`);
    this.node = html(
      "section",
      { class: "k-panel", "aria-labelledby": id, "data-panel": definition.key },
      html("header", {}, this.heading, html("span", { class: "k-files" }, this.svgButton, this.csvButton)),
      this.body,
      this.remark,
      this.told,
    );
  }

  /** Draw what two runs have; errors are shown in this panel and leave the others alone. */
  draw(own, other, step) {
    this.own = own;
    this.other = other;
    this.step = step;
    this.redraw();
  }

  redraw() {
    const { definition, scenery } = this;
    this.body.replaceChildren();
    this.remark.textContent = "";
    this.told.replaceChildren();
    const scene = {
      ...scenery,
      choices: scenery.store.choices,
      own: this.own,
      other: this.other,
      step: this.step,
      width: Math.max(280, Math.floor(this.body.clientWidth)),
      note: (text) => (this.remark.textContent = text),
    };
    if (definition.entitled) this.heading.textContent = definition.entitled(this.own, scenery.catalog);
    try {
      this.drawn = definition.draw(this.body, scene);
      this.svgButton.hidden = !this.drawn.picture;
    } catch (error) {
      this.drawn = null;
      this.body.replaceChildren(html("p", { class: "k-failed" }, `This cannot be drawn: ${error.message}`));
      console.error(error);
    }
  }

  /** Go to a step; a panel of other steps than the slider's is left alone until its own comes. */
  move(step) {
    const before = this.positions();
    this.step = step;
    if (!this.definition.cursor && this.positions() === before) return;
    this.drawn?.move?.(step);
  }

  /** Where each of its series is at the step. */
  positions() {
    const series = [this.own, this.other].flatMap((each) => Object.entries(each ?? {}));
    const read = series.filter(([name]) => this.definition.reads(name));
    return read.map(([, { block }]) => block.position(this.step)).join();
  }

  fileName(suffix) {
    const { run, span } = this.scenery.store.choices;
    return [run, span, this.definition.key].map((part) => part.replace(FILE_NAME, "_")).join("-") + suffix;
  }

  saveSvg() {
    if (this.drawn?.picture) save(this.fileName(".svg"), svgText(this.drawn.picture), "image/svg+xml", this.told);
  }

  saveCsv() {
    if (this.drawn) save(this.fileName(".csv"), csvText(this.drawn.table()), "text/csv", this.told);
  }
}
