// The clean view at /view#key=VIEW_KEY: shows the result and nothing else. It waits for sessions with that key for ever.
// `&background=black` in the address makes the rest of the window black instead of transparent.
import { sleep } from "./dom.js";
import { Painter } from "./painter.js";
import { SocketTransport } from "./socket.js";

const RETRY_MS = 3_000;
const KEEP_LAST_MS = 5_000; // an old face must not stay on a stream: after this long without a connection it is taken off

const address = new URLSearchParams(location.hash.slice(1));
document.body.dataset.background = address.get("background") ?? "transparent";
const painter = new Painter(document.getElementById("result"));

function watch() {
  return new Promise((resolve) => {
    const socket = new SocketTransport({ path: "/api/view", role: "viewer", key: address.get("key"), isAlive: async () => true });
    painter.reset();
    painter.onsettled = (header) => socket.acknowledge(header);
    socket.onframe = (header, jpeg) => painter.offer(header, jpeg);
    let timer = 0;
    socket.onlost = () => { timer = setTimeout(() => painter.clear(), KEEP_LAST_MS); };
    socket.onback = () => clearTimeout(timer);
    socket.ongone = () => { painter.clear(); resolve(); };
    socket.connect().catch(resolve);
  });
}

for (;;) {
  await watch();
  await sleep(RETRY_MS);
}
