// What the user chooses with: runs, span, step, view, theme, and a link to what is shown.

import { html } from "./dom.js";

function choice(label, key, store, options) {
  const select = html("select", { onchange: () => store.set({ [key]: select.value }) });
  select.dataset.choice = key;
  const offer = (values) => {
    select.replaceChildren(...values.map(([value, name]) => html("option", { value }, name)));
    select.value = store.choices[key];
  };
  offer(options ?? []);
  return { node: html("label", {}, html("span", {}, label), select), offer };
}

/** The bar above the panels. */
export class Controls {
  constructor(store, { choose, link, say }) {
    this.store = store;
    this.run = choice("Run", "run", store);
    this.other = choice("Beside it", "other", store);
    this.span = choice("Span", "span", store);
    this.view = choice("Plane", "view", store, [["lambda", "λ, over the span"], ["omega", "ω = log λ, rates"]]);
    this.theme = choice("Theme", "theme", store, [["auto", "as around"], ["light", "light"], ["dark", "dark"]]);
    this.steps = [];
    this.slider = html("input", { type: "range", min: 0, step: 1, class: "k-slider" });
    this.slider.addEventListener("input", () => choose(this.steps[Number(this.slider.value)]));
    this.box = html("input", { type: "text", inputmode: "decimal", class: "k-step", size: 8 });
    this.box.addEventListener("change", () => this.typed(choose));
    this.count = html("output", { class: "k-count" });
    this.name = html("span", {}, "Step");
    this.copy = html("button", { type: "button", onclick: () => this.copyLink(link, say) }, "Copy link");
    this.copied = html("span", { class: "k-copied" });
    this.stepping = html(
      "div",
      { class: "k-stepping", role: "group", "aria-label": "step" },
      html("label", {}, this.name, this.slider),
      html("label", { class: "k-typed" }, html("span", { class: "k-hidden" }, "Step to go to"), this.box),
      this.count,
    );
    this.node = html(
      "div",
      { class: "k-controls" },
      this.run.node,
      this.other.node,
      this.span.node,
      this.view.node,
      this.theme.node,
      html("span", { class: "k-link" }, this.copy, this.copied),
      this.stepping,
    );
  }

  /** What can be chosen now. */
  offer({ runs, spans, steps, named, axis }) {
    const plain = (names) => names.map((name) => [name, name]);
    this.run.offer(plain(runs));
    this.other.offer([["", "no other run"], ...plain(runs.filter((run) => run !== this.store.choices.run))]);
    this.span.offer(plain(spans));
    this.other.node.hidden = runs.length < 2;
    this.steps = steps;
    this.named = named;
    this.slider.max = Math.max(0, steps.length - 1);
    this.stepping.hidden = steps.length < 2;
    this.name.textContent = axis[0].toUpperCase() + axis.slice(1);
    this.show(this.store.choices.step);
  }

  /** The step that is drawn. */
  show(step) {
    const position = Math.max(0, this.steps.indexOf(step));
    this.slider.value = position;
    const name = this.named ? this.named(step) : String(step);
    this.slider.setAttribute("aria-valuetext", name);
    if (document.activeElement !== this.box) this.box.value = name;
    this.count.textContent = `${position + 1} of ${this.steps.length}`;
  }

  typed(choose) {
    const text = this.box.value.trim();
    const found = this.steps.find((step) => this.named(step) === text);
    const value = found ?? Number(text);
    if (text && Number.isFinite(value)) choose(value);
    this.box.value = this.named(this.store.choices.step);
  }

  async copyLink(link, say) {
    const address = link.url();
    try {
      await navigator.clipboard.writeText(address);
      this.copied.replaceChildren("copied");
      say("The link is copied.");
    } catch {
      const field = html("input", { readonly: true, "aria-label": "link to this view" });
      field.value = address;
      this.copied.replaceChildren(field);
      field.select();
    }
  }
}
