// What is shown, as keys of an address's hash, so that a copied link shows it again.

const QUIET = 250; // ms without a change until the address is written: browsers stop those that write often
const KEY_PREFIX = "p.koopman."; // TensorBoard hands a plugin the keys that begin like this

/** The part of a hash such as `#koopman&p.koopman.run=a` that is ours: name → text. */
export function keysOfHash(hash) {
  const keys = {};
  for (const part of hash.replace(/^#/, "").split("&")) {
    const [name, value, ...more] = part.split("=");
    if (!name.startsWith(KEY_PREFIX) || value === undefined || more.length) continue;
    try {
      keys[name.slice(KEY_PREFIX.length)] = decodeURIComponent(value);
    } catch {
      continue; // no text that anybody encoded
    }
  }
  return keys;
}

/** The same hash with other keys of ours; those that are null or empty are left out. */
export function hashWithKeys(hash, keys) {
  const others = hash.replace(/^#/, "").split("&");
  const kept = others.filter((part) => part && !part.startsWith(KEY_PREFIX));
  const own = Object.entries(keys)
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .map(([name, value]) => `${KEY_PREFIX}${name}=${encodeURIComponent(value)}`);
  return `#${[...kept, ...own].join("&")}`;
}

/**
 * A link to what a window shows: `read()`, `write(keys)`, and `url()`, the address to copy.
 *
 * A window that has no address of its own (srcdoc), or is another site's, keeps the keys in memory.
 * `start`: what to read until something is written.
 */
export function urlLink(shown, start = {}) {
  let current = { ...start, ...attempt(() => keysOfHash(shown.location.hash), {}) };
  let waiting = 0;
  const address = () =>
    attempt(() => {
      const hash = hashWithKeys(shown.location.hash, current);
      shown.history.replaceState(shown.history.state, "", hash);
    });
  attempt(() => {
    shown.addEventListener("hashchange", () => {
      const asked = keysOfHash(shown.location.hash);
      const same = hashWithKeys("", asked) === hashWithKeys("", current);
      if (!same && Object.keys(asked).length) window.location.reload(); // a link was followed
    });
  });
  return {
    read: () => ({ ...current }),
    write(keys) {
      current = keysOfHash(hashWithKeys("", keys));
      clearTimeout(waiting);
      waiting = setTimeout(address, QUIET);
    },
    url() {
      return attempt(() => {
        const [page] = shown.location.href.split("#");
        return page + hashWithKeys(shown.location.hash, current);
      }, hashWithKeys("", current));
    },
  };
}

/** What `make` gives, or `otherwise` where the browser forbids it. */
function attempt(make, otherwise) {
  try {
    return make();
  } catch {
    return otherwise;
  }
}
