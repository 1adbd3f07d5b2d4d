// What there is to show, asked of the TensorBoard plugin that served this module.

/** A source: `index()`, `block(entry)`, `onReload(callback)`; `host` as in host.js. */
export function tabSource(host) {
  async function answer(route) {
    const response = await fetch(new URL(route, import.meta.url));
    if (response.ok) return response;
    throw new Error(`TensorBoard answers ${response.status}: ${await response.text()}`);
  }
  return {
    index: async () => (await answer("./index")).json(),
    block: async (entry) =>
      (await answer(`./block?key=${encodeURIComponent(entry.key)}`)).arrayBuffer(),
    onReload: (callback) => host.listen("experimental.DataReloaded", () => callback()),
  };
}
