// What the user has chosen, in one place: run, span, a run beside it, step, view and theme.

/** Choices, and who wants to know when they change. */
export class Store {
  constructor(choices) {
    this.choices = { ...choices };
    this.listeners = [];
  }

  /** Change some of them; listeners get the names of those that are different now. */
  set(patch) {
    const changed = Object.keys(patch).filter((name) => patch[name] !== this.choices[name]);
    if (!changed.length) return;
    Object.assign(this.choices, patch);
    for (const listener of this.listeners) listener(new Set(changed));
  }

  listen(listener) {
    this.listeners.push(listener);
  }
}
