// Reaches a Stretto kernel: services from the contracts, credentials, repeats, refusals.
//
// STRETTO_ADDRESS   host:port of the kernel
// STRETTO_TOKEN     a bearer token; unset = anonymous, which a kernel takes from its own machine
// STRETTO_CONTRACTS the directory of the .proto files (buf export . -o contracts); default: beside this

import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const contracts = process.env.STRETTO_CONTRACTS ?? fileURLToPath(new URL("contracts", import.meta.url));
const services = ["run/v1/run_service.proto", "work/v1/work_service.proto"];
const { stretto } = grpc.loadPackageDefinition(
  protoLoader.loadSync(services.map((service) => `stretto/${service}`), {
    includeDirs: [contracts],
    keepCase: true,
    enums: String,
    longs: Number, // Epochs and versions stay far below 2^53.
    defaults: true,
    oneofs: true,
  }),
);

// The parts of google.rpc that say why a call was refused and when to try again.
const rpc = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`).root;

/** Clients of the services, over one connection. */
export function connect(address = process.env.STRETTO_ADDRESS) {
  if (!address) throw new Error("STRETTO_ADDRESS says where the kernel is (host:port)");
  const credentials = grpc.credentials.createInsecure();
  const options = {
    "grpc.max_receive_message_length": 4 << 20,
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 1000,
  };
  return {
    runs: new stretto.run.v1.RunService(address, credentials, options),
    work: new stretto.work.v1.WorkService(address, credentials, options),
  };
}

/** What every call carries: who we are. */
export function metadata() {
  const carried = new grpc.Metadata();
  const token = process.env.STRETTO_TOKEN;
  if (token) carried.set("authorization", `Bearer ${token}`);
  return carried;
}

/** A UUIDv7: ids of requests and sessions begin with their time. */
export function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** One call. Rejects with the gRPC error; `reasonOf` and `retryDelayOf` read it. */
export function callOnce(client, method, request, { timeoutMs = 30_000, signal } = {}) {
  const deadline = Date.now() + timeoutMs;
  return new Promise((resolve, reject) => {
    const made = client[method](request, metadata(), { deadline }, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
    signal?.addEventListener("abort", () => made.cancel(), { once: true });
  });
}

/**
 * The same call again until it is answered or refused for good. Its request_id, or the tokens in it,
 * make a repeat harmless. When `signal` is aborted: give up and return null.
 */
export async function call(client, method, request, options = {}) {
  while (!options.signal?.aborted) {
    try {
      return await callOnce(client, method, request, options);
    } catch (error) {
      if (options.signal?.aborted) break;
      const delayMs = retryDelayOf(error);
      if (delayMs === null) throw error;
      await pause(delayMs * (0.5 + Math.random()));
    }
  }
  return null;
}

/** The stable reason word of a refusal: an error of a call, or the status of a receipt. */
export function reasonOf(refusal) {
  return detailOf(refusal, "ErrorInfo")?.reason ?? "";
}

/** When to try again, in milliseconds; null when that does not help. */
export function retryDelayOf(refusal) {
  const asked = detailOf(refusal, "RetryInfo")?.retryDelay;
  if (asked) return Number(asked.seconds ?? 0) * 1000 + (asked.nanos ?? 0) / 1e6;
  const { UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED } = grpc.status;
  return [UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED].includes(refusal.code) ? 100 : null;
}

function detailOf(refusal, name) {
  const [encoded] = refusal.metadata?.get?.("grpc-status-details-bin") ?? [];
  const status = encoded ? rpc.lookupType("Status").decode(encoded) : refusal;
  for (const detail of Array.isArray(status.details) ? status.details : []) {
    const url = detail.typeUrl ?? detail.type_url;
    if (url?.endsWith(`google.rpc.${name}`)) return rpc.lookupType(name).decode(detail.value);
  }
  return null;
}

/** How a lease is told from another: its work item and epoch. */
export const keyOf = (token) => `${token.work_item}@${token.epoch}`;
