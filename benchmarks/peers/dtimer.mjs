// The original dtimer, as its README shows it: the redis client promisified by bluebird, confirm() after each event.

import { createRequire } from "node:module";
import { once } from "node:events";
import { serve, Unsupported } from "./serving.mjs";

// Its packages lie beside the package.json that this process was started for, not beside this file.
const require = createRequire(process.argv[2]);
const Promised = require("bluebird");
const redis = Promised.promisifyAll(require("redis"));
const { DTimer } = require("dtimer");

class Original {
  async open(url, namespace, settings) {
    this.url = new URL(url);
    this.namespace = namespace;
    this.settings = settings;
    this.clients = [];
    this.nodes = [];
    this.poster = new DTimer("poster", await this.client(), null, { ns: namespace });
    return { dtimer: require("dtimer/package.json").version, redis: require("redis/package.json").version };
  }

  async client() {
    const client = redis.createClient(Number(this.url.port), this.url.hostname);
    client.on("error", (error) => console.error(error));
    this.clients.push(client);
    await once(client, "ready");
    return client;
  }

  async post(timer) {
    await this.poster.post({ maxRetries: 3, data: timer }, timer.due_ms - Date.now());
  }

  async postMany() {
    throw new Unsupported("the original posts one event a call");
  }

  async work(workers, fired, confirmed) {
    for (let made = 0; made < workers; made++) {
      const { maxEvents } = this.settings;
      const id = `node-${process.pid}-${made}`;
      const node = new DTimer(id, await this.client(), await this.client(), { ns: this.namespace, maxEvents });
      node.on("error", (error) => console.error(error));
      node.on("event", (event) => {
        fired(event.data);
        node.confirm(event.id).then(confirmed, (error) => console.error(error));
      });
      await node.join();
      this.nodes.push(node);
    }
  }

  async rest() {
    await Promise.all(this.nodes.map((node) => node.leave()));
    this.nodes = [];
  }

  async close() {
    this.clients.forEach((client) => client.end());
  }
}

await serve(new Original());
