// BullMQ: a Queue and a Worker on ioredis.

import { createRequire } from "node:module";
import { serve } from "./serving.mjs";

// Its packages lie beside the package.json that this process was started for, not beside this file.
const require = createRequire(process.argv[2]);
const { Queue, Worker } = require("bullmq");
const { Redis } = require("ioredis");

class BullMQ {
  async open(url, namespace, settings) {
    this.url = url;
    this.namespace = namespace;
    this.settings = settings;
    this.workers = [];
    this.connections = [];
    this.queue = new Queue(namespace, { connection: this.connection() });
    await this.queue.waitUntilReady();
    return { bullmq: require("bullmq/package.json").version, ioredis: require("ioredis/package.json").version };
  }

  connection() {
    const connection = new Redis(this.url, { maxRetriesPerRequest: null });
    this.connections.push(connection);
    return connection;
  }

  job(timer) {
    const timestamp = Date.now();
    const delay = Math.max(0, timer.due_ms - timestamp);
    return { name: "timer", data: timer, opts: { delay, timestamp, removeOnComplete: true, attempts: 4 } };
  }

  async post(timer) {
    const { name, data, opts } = this.job(timer);
    await this.queue.add(name, data, opts);
  }

  async postMany(timers) {
    await this.queue.addBulk(timers.map((timer) => this.job(timer)));
  }

  async work(workers, fired) {
    for (let made = 0; made < workers; made++) {
      const worker = new Worker(this.namespace, async (job) => fired(job.data), {
        connection: this.connection(),
        concurrency: this.settings.concurrency,
      });
      worker.on("error", (error) => console.error(error));
      await worker.waitUntilReady();
      this.workers.push(worker);
    }
  }

  async rest() {
    await Promise.all(this.workers.map((worker) => worker.close()));
    this.workers = [];
  }

  async close() {
    await this.queue.close();
    this.connections.forEach((connection) => connection.disconnect());
  }
}

await serve(new BullMQ());
