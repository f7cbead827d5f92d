// Ticks at a steady rate. A worker's timers keep their pace while the page is hidden; the page's own do not.
const TICK_MS = 33;
setInterval(() => postMessage(null), TICK_MS);
