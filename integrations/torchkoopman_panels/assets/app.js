// The page: reads a source, keeps what the user has chosen, and draws the panels.

import { auditPanel } from "./audit.js";
import { bettiPanel } from "./betti.js";
import { Catalog } from "./catalog.js";
import { Controls } from "./controls.js";
import { html } from "./dom.js";
import { flowPanel } from "./flow.js";
import { footOf } from "./foot.js";
import { Frame, Tip } from "./panel.js";
import { qualityPanel } from "./quality.js";
import { sentenceOf } from "./sentence.js";
import { singularPanel } from "./singular.js";
import { spectrumPanel } from "./spectrum.js";
import { Store } from "./state.js";
import { tablePanel } from "./tables.js";
import { trainingPanel } from "./training.js";
import { trajectoriesPanel } from "./trajectories.js";

const PANELS = [
  [spectrumPanel, "log(writer, surrogate, step)"],
  [trainingPanel, "log(writer, surrogate, step) at more than one step"],
  [singularPanel, "log(writer, surrogate, step)"],
  [qualityPanel, "log(writer, surrogate, step)"],
  [bettiPanel, "log(writer, surrogate.topology(model, loader), step)"],
  [auditPanel, "log(writer, tk.audit(model, edited, classes, train, test), step)"],
  [trajectoriesPanel, "log(writer, surrogate.paths(model, loader), step)"],
  [flowPanel, "log(writer, monitor.latest, step), of a tk.flows.FlowMonitor"],
];
const DEFAULTS = { run: "", span: "", other: "", step: NaN, view: "lambda", theme: "auto" };

/** Whether the page around is dark, by the system's setting. */
function systemDark(told) {
  const query = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
  told(Boolean(query?.matches));
  query?.addEventListener("change", () => told(query.matches));
}

class Page {
  constructor(root, source, link, dark) {
    this.root = root;
    this.link = link;
    this.catalog = new Catalog(source);
    const asked = link.read();
    this.store = new Store({ ...DEFAULTS, ...asked, step: Number.parseFloat(asked.step) });
    this.following = !Number.isFinite(this.store.choices.step);
    root.classList.add("k-root");
    this.live = html("div", { class: "k-hidden", "aria-live": "polite" });
    const say = (text) => (this.live.textContent = text);
    const choose = (step) => this.choose(step);
    this.controls = new Controls(this.store, { choose, link, say });
    this.title = html("h1", {}, "Koopman");
    this.sentence = html("p", { class: "k-first" });
    this.told = html("div", { class: "k-warnings" });
    this.panels = html("div", { class: "k-panels" });
    this.foot = html("footer", {});
    root.replaceChildren(
      html("div", { class: "k-page" }, this.title, this.controls.node, this.told, this.sentence, this.panels, this.foot),
      this.live,
    );
    this.scenery = { catalog: this.catalog, store: this.store, tip: new Tip(root), say, choose };
    this.frames = new Map();
    this.reading = 0;
    dark((value) => {
      root.dataset.dark = value;
    });
    root.dataset.theme = this.store.choices.theme;
    this.store.listen((changed) => this.changed(changed));
    root.addEventListener("keydown", (event) => this.key(event));
    let width = root.clientWidth;
    new ResizeObserver(() => {
      if (Math.abs(root.clientWidth - width) < 2) return;
      width = root.clientWidth;
      for (const frame of this.frames.values()) if (frame.own) frame.redraw();
    }).observe(root);
    source.onReload?.(() => this.refresh());
  }

  /** Read the index, keep what still exists of the choices, and draw. */
  async refresh() {
    try {
      await this.catalog.refresh();
    } catch (error) {
      this.warn([`What is logged cannot be read: ${error.message}`]);
      return;
    }
    const { choices } = this.store;
    const runs = [...this.catalog.runs.keys()];
    this.title.textContent = this.catalog.title || "Koopman";
    this.warn();
    this.controls.node.hidden = !runs.length;
    if (!runs.length) {
      this.panels.replaceChildren();
      this.frames.clear();
      this.foot.replaceChildren();
      this.sentence.textContent = "Nothing is logged here yet. torchkoopman_tensorboard.log(writer, surrogate, step) adds a spectrum.";
      return;
    }
    const run = runs.includes(choices.run) ? choices.run : runs[0];
    const other = runs.includes(choices.other) && choices.other !== run ? choices.other : "";
    Object.assign(choices, { run, other, span: this.spanOf(run, choices.span) });
    await this.show();
  }

  /** Say what cannot be shown. */
  warn(more = []) {
    const all = [...this.catalog.told(), ...more];
    this.told.replaceChildren(...all.map((text) => html("p", { class: "k-warning" }, text)));
  }

  /** The span asked for, or the first one with a spectrum. */
  spanOf(run, asked) {
    const spans = this.catalog.spans(run);
    const seen = (span) => this.catalog.entries(run, span).some(({ name }) => name === "spectrum");
    return spans.includes(asked) ? asked : (spans.find(seen) ?? spans[0]);
  }

  changed(names) {
    const { choices } = this.store;
    if (names.has("theme")) this.root.dataset.theme = choices.theme;
    if (names.has("run")) {
      const other = choices.other === choices.run ? "" : choices.other;
      Object.assign(choices, { other, span: this.spanOf(choices.run, choices.span) });
    }
    if (["run", "other", "span"].some((name) => names.has(name))) this.show();
    else if (names.has("view") || names.has("theme")) this.frames.get("spectrum")?.redraw();
    this.link.write(this.chosen());
  }

  /** What a link needs to show the same again. */
  chosen() {
    const { run, span, other, step, view, theme } = this.store.choices;
    return { run, span, other, step: this.following ? "" : String(step), view, theme };
  }

  /** Go to the latest step that is not after this one. */
  choose(step) {
    const { steps } = this;
    if (!steps.length || !Number.isFinite(step)) return;
    const at = steps.findLast((each) => each <= step) ?? steps[0];
    this.following = at === steps.at(-1);
    this.store.choices.step = at;
    this.link.write(this.chosen());
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.move();
    });
  }

  move() {
    const { step } = this.store.choices;
    this.controls.show(step);
    this.tell();
    for (const frame of this.frames.values()) frame.move(step);
  }

  key(event) {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (typing || !by || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = this.steps.indexOf(this.store.choices.step) + by;
    if (at < 0 || at >= this.steps.length) return;
    event.preventDefault();
    this.choose(this.steps[at]);
  }

  /** Read and draw: the spectrum first, then everything else. */
  async show() {
    const turn = (this.reading += 1);
    const { run, span, other } = this.store.choices;
    for (const names of [spectrumPanel.reads, () => true]) {
      const [own, beside] = await Promise.all([
        this.catalog.read(run, span, names),
        other ? this.catalog.read(other, span, names) : null,
      ]);
      if (turn !== this.reading) return;
      this.warn();
      this.draw(own, beside);
    }
  }

  draw(own, other) {
    const { choices } = this.store;
    this.own = own;
    this.otherSeries = other;
    const all = [own, other].flatMap((series) => Object.values(series ?? {}));
    this.steps = [...new Set(all.flatMap(({ block }) => block.steps))].sort((a, b) => a - b);
    const last = this.steps.at(-1) ?? 0;
    const kept = this.steps.findLast((step) => step <= choices.step) ?? this.steps[0] ?? 0;
    choices.step = this.following ? last : kept;
    this.controls.offer({
      runs: [...this.catalog.runs.keys()],
      spans: this.catalog.spans(choices.run),
      steps: this.steps,
      named: (step) => this.catalog.named(step),
      axis: this.catalog.axis,
    });
    const tables = Object.keys(own).filter((name) => name.startsWith("table:"));
    const wanted = [...PANELS, ...tables.map((name) => [tablePanel(name), ""])];
    const present = wanted.filter(([panel]) => panel.present(own));
    const frames = present.map(([panel]) => this.frames.get(panel.key) ?? new Frame(panel, this.scenery));
    this.frames = new Map(frames.map((frame) => [frame.definition.key, frame]));
    const nodes = frames.map((frame) => frame.node);
    const same = nodes.length === this.panels.children.length && nodes.every((node, k) => node === this.panels.children[k]);
    if (!same) this.panels.replaceChildren(...nodes);
    for (const frame of frames) frame.draw(own, other, choices.step);
    this.tell();
    this.foot.replaceChildren(...footOf(own, wanted.filter(([panel]) => !panel.present(own))));
  }

  tell() {
    const { run, other, step } = this.store.choices;
    const first = sentenceOf(this.own, step);
    const second = this.otherSeries ? sentenceOf(this.otherSeries, step) : "";
    const all = second ? `${run}: ${first}. ${other}: ${second}.` : first && `${first}.`;
    const pieces = all.split(/(?<=, )/);
    this.sentence.replaceChildren(...pieces.map((piece) => html("span", { class: "k-piece" }, piece)));
  }
}

/**
 * Show a source in an element.
 *
 * source has index(), block(entry) and, where data can grow, onReload(callback). link keeps the choices in
 * an address: read(), write(choices), url(). dark(told) calls told(true or false) now and on every change.
 */
export async function mount(root, source, { link, dark = systemDark }) {
  const page = new Page(root, source, link, dark);
  await page.refresh();
  return page;
}
