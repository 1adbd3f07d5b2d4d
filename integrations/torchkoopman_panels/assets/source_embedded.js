// What there is to show, written in the page itself.

/** A source: `index()`, `block(entry)`, `onReload(callback)`, of a page that page.py made. */
export function embeddedSource(page) {
  const written = (id) => page.getElementById(id).textContent;
  return {
    index: async () => JSON.parse(written("index")),
    async block(entry) {
      const text = atob(written(`block-${entry.key}`));
      const bytes = new Uint8Array(text.length);
      for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
      return bytes.buffer;
    },
    onReload() {}, // a page does not change
  };
}
