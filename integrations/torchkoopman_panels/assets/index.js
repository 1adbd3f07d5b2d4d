// The tab in TensorBoard: it imports this module into an empty frame and calls render().

import { mount } from "./app.js";
import { hostDark, hostMessages } from "./host.js";
import { urlLink } from "./link.js";
import { tabSource } from "./source_tab.js";

export async function render() {
  document.documentElement.lang = "en";
  document.title = "Koopman";
  const host = hostMessages();
  const asked = host.ask("experimental.GetURLPluginData", { pluginName: "koopman" });
  const root = document.createElement("main");
  root.id = "koopman";
  await styled("./panels.css");
  document.body.append(root);
  const link = urlLink(window.parent, (await asked) ?? {});
  await mount(root, tabSource(host), { link, dark: hostDark });
}

/** Add a style sheet, and wait until it is read. */
function styled(path) {
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL(path, import.meta.url).href;
  return new Promise((resolve) => {
    sheet.onload = sheet.onerror = resolve;
    document.head.append(sheet);
  });
}
