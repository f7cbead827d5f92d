// The clean view at /view#key=VIEW_KEY: the result and nothing else. It waits for sessions with that key indefinitely.
// `&background=black` in the address makes the rest of the window black instead of transparent.
import { byId, sleep } from "./dom.js";
import { Painter } from "./painter.js";
import { SocketTransport } from "./socket.js";

const RETRY_MS = 3_000;
const KEEP_LAST_MS = 5_000; // the last frame must not stay on a stream: after this long without a connection it is cleared

const address = new URLSearchParams(location.hash.slice(1));
document.body.dataset.background = address.get("background") ?? "transparent";
const painter = new Painter(byId("result", HTMLCanvasElement));

/** @returns {Promise<void>} resolves when the session has ended, or there is none */
function watch() {
  return new Promise((resolve) => {
    let timer = 0;
    const socket = new SocketTransport({
      path: "/api/view", role: "viewer", key: address.get("key") ?? "",
      isAlive: async () => true,
      onframe: (header, jpeg) => painter.offer(header, jpeg),
      onlost: () => { timer = setTimeout(() => painter.clear(), KEEP_LAST_MS); },
      onback: () => clearTimeout(timer),
      onended: () => { painter.clear(); resolve(); },
    });
    painter.reset();
    painter.onsettled = (header) => socket.acknowledge(header);
    socket.connect().catch(() => resolve());
  });
}

for (;;) {
  await watch();
  await sleep(RETRY_MS);
}
