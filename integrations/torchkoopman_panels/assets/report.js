// A page by itself: what it shows is written in it.

import { mount } from "./app.js";
import { urlLink } from "./link.js";
import { embeddedSource } from "./source_embedded.js";

mount(document.getElementById("koopman"), embeddedSource(document), { link: urlLink(window) });
