// The Node end of the conversation with a peer's process: a JSON object a line in, one out for each.
// All that is counted and timed is counted and timed here, in the same way for every peer, as in serving.py.

import { createInterface } from "node:readline";
import { writeSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";

const TEXT = "x".repeat(155);

const nowUs = () => Math.floor((performance.timeOrigin + performance.now()) * 1000);
// performance's clock is set once, at the start; the due times are by the wall clock.
const wallUs = () => Date.now() * 1000;

export class Unsupported extends Error {}

// Draws from 0 up to 1, the same from the same seed.
function randomly(seed) {
  let state = (seed + 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 4294967296;
  };
}

class Serving {
  constructor(peer) {
    this.peer = peer;
    this.fired = [];
    this.lastUs = 0;
  }

  async open({ url, namespace, settings }) {
    const versions = await this.peer.open(url, namespace, settings);
    return { versions, runtime: `Node ${process.versions.node}` };
  }

  async post({ how, num, first, due_ms, spread_ms, step_ms, callers, batch }) {
    const draw = randomly(first);
    const timers = Array.from({ length: num }, (_, index) => ({
      n: first + index,
      due_ms: due_ms + index * step_ms + Math.floor(draw() * spread_ms),
      text: TEXT,
    }));
    let next = 0;
    const caller = async () => {
      while (next < num) await this.peer.post(timers[next++]);
    };
    const cpu = process.cpuUsage();
    const startMs = performance.now();
    if (how === "one") await caller();
    else if (how === "callers") await Promise.all(Array.from({ length: callers }, caller));
    else if (how === "batch") {
      for (; next < num; next += batch) await this.peer.postMany(timers.slice(next, next + batch));
    } else throw new Error(how);
    const seconds = (performance.now() - startMs) / 1000;
    const used = process.cpuUsage(cpu);
    return { seconds, cpu_s: (used.user + used.system) / 1e6 };
  }

  async pace({ rate, seconds, delay_min_ms, delay_max_ms, seed }) {
    const draw = randomly(seed);
    const num = Math.floor(rate * seconds);
    const posts = [];
    const startMs = performance.now();
    for (let n = 0; n < num; n++) {
      const pauseMs = startMs + (n / rate) * 1000 - performance.now();
      if (pauseMs > 0) await sleep(pauseMs);
      else if (n % 20 === 0) await sleep(0);
      const delay_ms = delay_min_ms + Math.floor(draw() * (delay_max_ms - delay_min_ms + 1));
      posts.push(this.peer.post({ n, due_ms: Date.now() + 1 + delay_ms, text: TEXT }));
    }
    await Promise.all(posts);
    return { num, seconds: (performance.now() - startMs) / 1000 };
  }

  async work({ workers }) {
    this.fired = [];
    this.lastUs = 0;
    // Both clocks tell the time since 1970; the finer one is moved to where the other stands.
    const offsetUs = await this.offsetUs();
    const fired = (timer) => {
      this.lastUs = nowUs() + offsetUs;
      this.fired.push([timer.n, this.lastUs - timer.due_ms * 1000]);
    };
    const confirmed = () => {
      this.lastUs = nowUs() + offsetUs;
    };
    await this.peer.work(workers, fired, confirmed);
  }

  // At the moment at which the wall clock, which shows whole milliseconds, turns to the next one.
  async offsetUs() {
    const before = wallUs();
    let after = before;
    while (after === before) after = wallUs();
    return after - nowUs();
  }

  async count() {
    return { num: this.fired.length };
  }

  async fires() {
    return { fires: this.fired, last_us: this.lastUs };
  }

  async rest() {
    await this.peer.rest();
  }

  async close() {
    await this.peer.close();
  }
}

function reply(object) {
  let bytes = Buffer.from(JSON.stringify(object) + "\n");
  while (bytes.length) {
    try {
      bytes = bytes.subarray(writeSync(1, bytes));
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

export async function serve(peer) {
  console.log = console.error;
  const serving = new Serving(peer);
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...order } = JSON.parse(line);
    try {
      reply((await serving[name](order)) ?? {});
    } catch (error) {
      console.error(error);
      reply({ error: String(error), unsupported: error instanceof Unsupported });
    }
  }
  process.exit(0);
}
