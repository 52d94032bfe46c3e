// The workers' command line: [BODIES] [--name NAME] [--slots N] [--queue QUEUE]

import { hostname } from "node:os";
import { resolve } from "node:path";
import { parseArgs } from "node:util";

export async function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      name: { type: "string", default: `node-${hostname()}` },
      slots: { type: "string", default: "4" },
      queue: { type: "string", default: "default" },
    },
  });
  const path = positionals[0] ? resolve(positionals[0]) : new URL("bodies.js", import.meta.url);
  const { default: bodies } = await import(path);
  return { bodies, name: values.name, slots: Number(values.slots), queues: [values.queue] };
}
