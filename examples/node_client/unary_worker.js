// A worker over unary calls:  node unary_worker.js [BODIES] [--name NAME] [--slots N]
//
// LeaseWork is a long poll; the same request_id until it is answered. A body begins when its first
// renewal was not refused: that acknowledges it. Every call is sent again until it has an answer.
// SIGTERM: takes nothing more, gives back what its last poll may have been granted, finishes.

import { setTimeout as pause } from "node:timers/promises";
import { Leases } from "./leases.js";
import { options } from "./options.js";
import { call, connect, keyOf, reasonOf, uuid7 } from "./stretto.js";

const { bodies, name, slots, queues } = await options();
const { work } = connect();
const worker = {
  worker_id: name,
  session_id: uuid7(), // One per process: a newer one fences the older.
  executors: Object.keys(bodies),
  queues,
  slot_count: slots,
};
const drain = new AbortController();
let wake = () => {};
const leases = new Leases(bodies, () => wake());
for (const end of ["SIGTERM", "SIGINT"]) process.on(end, () => (drain.abort(), wake()));
const changed = () => new Promise((resolve) => (wake = resolve));

async function poll() {
  while (!drain.signal.aborted) {
    const free = slots - leases.count;
    if (!free) {
      await Promise.race([changed(), pause(100)]);
      continue;
    }
    const request = {
      worker,
      request_id: uuid7(),
      count_max: free,
      wait_timeout: { seconds: 20 },
    };
    const answer = await call(work, "LeaseWork", request, { signal: drain.signal }).catch(asked);
    if (answer) await begin(answer.assignments);
    else await giveBack([], [request.request_id]);
  }
}

/** Somebody asked this process to end: it finishes what it holds. */
function asked(error) {
  if (reasonOf(error) !== "WORKER_DRAINED") throw error;
  drain.abort();
  wake();
}

async function begin(assignments) {
  for (const assignment of assignments) leases.add(assignment);
  const tokens = assignments.map((assignment) => assignment.token);
  for (let waiting = tokens; waiting.length; waiting = await renew(waiting)) {
    // What is not known is asked again; what was refused is dropped.
  }
  tokens.forEach((token) => leases.begin(token));
}

/** Renews leases; drops those that are over and returns those of which nothing is known. */
async function renew(tokens) {
  const answer = await call(work, "RenewLeases", { renewals: tokens.map((token) => ({ token })) });
  const unknown = new Set();
  for (const receipt of answer.receipts) {
    if (receipt.status.code === 14) unknown.add(keyOf(receipt.token));
    else leases.drop(receipt.token);
  }
  answer.signals.forEach((signal) => leases.hear(signal));
  return tokens.filter((token) => unknown.has(keyOf(token)));
}

async function keepRenewing() {
  for (;;) {
    await pause(leases.renewMs);
    if (leases.count) await renew(leases.tokens());
  }
}

async function report() {
  for (;;) {
    const outcomes = leases.outcomes();
    if (outcomes.length) {
      const answer = await call(work, "ReportOutcomes", { outcomes });
      for (const receipt of answer.receipts) {
        if (receipt.status.code !== 14) leases.drop(receipt.token);
      }
    } else if (drain.signal.aborted && !leases.count) {
      return;
    }
    await Promise.race([changed(), pause(100)]);
  }
}

const giveBack = (tokens, lease_request_ids) =>
  call(work, "ReleaseWork", {
    tokens,
    lease_request_ids,
    session_id: worker.session_id,
    reason: "the worker ends",
  });

try {
  const renewing = keepRenewing();
  await Promise.race([Promise.all([poll(), report()]), renewing]);
  process.exit(0);
} catch (error) {
  console.error(`${reasonOf(error) || error.code}: ${error.details ?? error}`);
  process.exit(1); // SESSION_REPLACED, or a refusal that no repeat helps against.
}
