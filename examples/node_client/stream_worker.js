// A worker over one work stream:  node stream_worker.js [BODIES] [--name NAME] [--slots N]
//
// Hello with every lease held, credits as a total that never falls, acknowledgements, renewals,
// outcomes until their receipt. When the stream breaks, bodies run on and the next hello names them.
// SIGTERM: takes nothing more, finishes, says goodbye.

import { setTimeout as pause } from "node:timers/promises";
import { Leases } from "./leases.js";
import { options } from "./options.js";
import { connect, metadata, reasonOf, uuid7 } from "./stretto.js";

const { bodies, name, slots, queues } = await options();
const { work } = connect();
const sessionId = uuid7(); // One per process: a newer one fences the older.
let draining = false;
let flush = () => {};
const leases = new Leases(bodies, () => flush());
for (const end of ["SIGTERM", "SIGINT"]) process.on(end, () => ((draining = true), flush()));

/** One stream, from hello to its end; resolves with the error that ended it, null for a goodbye. */
function serve() {
  const stream = work.Work(metadata());
  let accepted = 0; // Assignments taken on this stream: credits are counted from its hello.
  let credit = 0;
  let welcomed = false;
  let saidGoodbye = false;
  let idleMs = 15_000;
  let renewing, silence;

  const say = (parts) => {
    // Outcomes without a receipt still take their slot: the kernel may be slow, not we.
    if (!draining) credit = Math.max(credit, accepted + slots - leases.count);
    stream.write({ credit_total_count: credit, draining, ...parts });
  };
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => stream.cancel(), idleMs);
  };
  const renew = () => {
    say({ renewals: leases.tokens().map((token) => ({ token })), outcomes: leases.outcomes() });
    renewing = setTimeout(renew, leases.renewMs);
  };
  flush = () => {
    if (!welcomed || saidGoodbye) return;
    saidGoodbye = draining && !leases.count;
    say({ outcomes: leases.outcomes(), goodbye: saidGoodbye ? {} : undefined });
    if (saidGoodbye) stream.end();
  };

  say({
    hello: {
      worker_id: name,
      session_id: sessionId,
      executors: Object.keys(bodies),
      queues,
      held: leases.tokens(),
      slot_count: slots,
    },
  });
  heard();
  stream.on("data", (frame) => {
    heard();
    if (frame.welcome) {
      welcomed = true;
      frame.welcome.drop.forEach((token) => leases.drop(token));
      idleMs = frame.welcome.idle_timeout.seconds * 1000;
      clearTimeout(renewing);
      renew(); // With the outcomes of bodies that ended while there was no stream.
    }
    for (const receipt of frame.receipts) {
      const { code } = receipt.status ?? { code: 0 };
      // 14: send it again, which the next renewal does. Anything else is the last word.
      if (code === 14) continue;
      if (receipt.kind === "RECEIPT_KIND_OUTCOME" || reasonOf(receipt.status) === "LEASE_LOST") {
        leases.drop(receipt.token);
      }
    }
    frame.signals.forEach((signal) => leases.hear(signal));
    if (frame.drain?.leave) (draining = true), flush(); // Somebody asked this process to end.
    if (frame.assignments.length) {
      for (const assignment of frame.assignments) {
        if (leases.has(assignment.token)) continue; // Sent twice: it runs already.
        accepted += 1;
        leases.add(assignment);
      }
      say({ acknowledged: frame.assignments.map((assignment) => assignment.token) });
      frame.assignments.forEach((assignment) => leases.begin(assignment.token));
    }
  });
  return new Promise((resolve) => {
    const over = (error) => {
      clearTimeout(renewing);
      clearTimeout(silence);
      flush = () => {};
      resolve(error);
    };
    stream.on("error", over);
    stream.on("end", () => over(null));
  });
}

while (!(draining && !leases.count)) {
  const error = await serve();
  if (reasonOf(error ?? {}) === "SESSION_REPLACED") process.exit(1);
  await pause(50 + Math.random() * 200);
}
process.exit(0);
