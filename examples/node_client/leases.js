// The leases a worker process holds, whatever carries its words: bodies, stops, outcomes.

import { keyOf } from "./stretto.js";

export class Leases {
  #held = new Map();
  #changed;

  /** changed: called when an outcome is there to be reported. */
  constructor(bodies, changed) {
    this.bodies = bodies;
    this.#changed = changed;
  }

  get count() {
    return this.#held.size;
  }

  /** How often to renew: thrice within the shortest TTL, at least every second. */
  get renewMs() {
    const ttlsMs = [...this.#held.values()].map(({ assignment: { ttl } }) => ttl.seconds * 1000);
    return Math.max(100, Math.min(1000, ...ttlsMs.map((ttlMs) => ttlMs / 3)));
  }

  has = (token) => this.#held.has(keyOf(token));
  tokens = () => [...this.#held.values()].map((held) => held.token);
  outcomes = () => [...this.#held.values()].map((held) => held.outcome).filter(Boolean);

  /** Holds an assignment whose body has not begun. */
  add(assignment) {
    const { token } = assignment;
    this.#held.set(keyOf(token), { token, assignment, stop: new AbortController(), asked: "" });
  }

  /** Begins the body of a lease held; again changes nothing. */
  begin(token) {
    const held = this.#held.get(keyOf(token));
    if (!held || held.begun) return;
    held.begun = true;
    this.#run(held).then((result) => {
      held.outcome = { token: held.token, ...result };
      this.#changed();
    });
  }

  async #run({ assignment, stop, ...held }) {
    const value = (payload) => JSON.parse(payload?.json || "null");
    const inputs = Object.entries(assignment.inputs).map(([name, payload]) => [name, value(payload)]);
    const task = {
      name: assignment.task,
      attempt: assignment.attempt,
      arguments: JSON.parse(assignment.arguments_json || "{}"),
      inputs: Object.fromEntries(inputs),
      lastDetails: value(assignment.last_details),
    };
    try {
      const result = await this.bodies[assignment.executor](task, stop.signal);
      return { succeeded: { result: { json: JSON.stringify(result ?? null) } } };
    } catch (error) {
      const asked = this.#held.get(keyOf(held.token))?.asked;
      if (asked === "SIGNAL_KIND_CANCEL") return { cancelled: {} };
      if (asked === "SIGNAL_KIND_INTERRUPT") return { released: { reason: "interrupted" } };
      const { reason = "BODY_FAILED", message, retryable = true } = error;
      return { failed: { reason, message, retryable } };
    }
  }

  /** The kernel asks something of a holder. */
  hear(signal) {
    const held = this.#held.get(keyOf(signal.token));
    if (!held) return;
    held.asked = signal.kind;
    held.stop.abort(new Error(signal.reason || signal.kind));
    if (signal.kind === "SIGNAL_KIND_REVOKE") this.drop(signal.token);
  }

  /** The lease is over, or its outcome has its receipt. */
  drop(token) {
    const held = this.#held.get(keyOf(token));
    if (!held) return;
    this.#held.delete(keyOf(token));
    if (!held.outcome) held.stop.abort(new Error("the lease is over"));
    this.#changed();
  }
}
