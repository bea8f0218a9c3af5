/** Settings of a coordinator; checked at start, all problems reported at once. */
import type { KvType } from "@tessera/model";
import { bindProblems, frontGuards, parseAddress, peerGuards, ServeError } from "@tessera/proto";
import { groupNameProblem, heartbeatIntervalProblem } from "@tessera/proto/membership";
import { parseNatsUrl } from "@tessera/proto/nats-server";
import { readSecurity, type Security, type SecurityOptions } from "../access/security.js";
import type { ChatTemplate } from "../request/prompt.js";
import { MAX_DRAFTS } from "./drafting.js";

export interface CoordinatorOptions extends SecurityOptions {
  modelDir: string;
  /** host:port; port 0 takes a free one. */
  listen: string;
  healthListen?: string | undefined;
  /** host:port of the HTTP front; absent: there is none. */
  httpListen?: string | undefined;
  /** Bytes of an HTTP body; default 64 MiB. */
  httpBodyLimit?: number | undefined;
  /** Folder of files and batches of the HTTP front; absent: it keeps none. */
  dataDir?: string | undefined;
  /** Origins whose pages may read HTTP answers, `*` for all; default none. */
  corsOrigins?: string[] | undefined;
  /** Addresses by rank; or `nats`. */
  workers?: string[] | undefined;
  /** nats://host:port: ranks are the leases of a group there; or `workers`. */
  nats?: string | undefined;
  /** Of the workers and the coordinator that belong together on one NATS; default `default`. */
  group?: string | undefined;
  /** Ranks that hold the decoder; with `nats` only, where they cannot be counted. */
  tensorParallel?: number | undefined;
  /** Between two heartbeats on NATS; default 500. */
  heartbeatMs?: number | undefined;
  /** Where the vision encoder lies; default `auto`, by the workers' memory. */
  vision?: "replicate" | "tensor" | "auto" | undefined;
  /** The last so many of the workers, or so many more leases, only encode tiles. */
  visionWorkers?: number | undefined;
  maxModelLen?: number | undefined;
  /** Of each rank. */
  cacheMemoryBytes?: number | undefined;
  /** Of each rank, for images' keys and values; models with cross-attention. */
  crossCacheMemoryBytes?: number | undefined;
  /** Of each rank, for tiles' embeddings. */
  embeddingMemoryBytes?: number | undefined;
  /** What a batch of tiles may take of the running streams' time; default 100. */
  encodeBudgetMs?: number | undefined;
  kvType: KvType;
  wireType: "f32" | "bf16";
  servedModelName?: string | undefined;
  chatTemplate: ChatTemplate;
  maxBatchedTokens?: number | undefined;
  maxSequences?: number | undefined;
  maxRequests: number;
  /** Prompt tokens that wait; default 64 times the context. */
  maxQueuedTokens?: number | undefined;
  /** Tokens of a sequence that a step guesses at most, from what the text has had before; default 0, none. */
  speculate?: number | undefined;
  /** Full blocks are kept and found again; default true. */
  prefixCache?: boolean | undefined;
  stepDeadlineMs: number;
  /** What a resumable stream without a reader has left, and how long an ended one is kept; default 30 s. */
  resumeGraceMs?: number | undefined;
  /** http(s)://host:port of an OpenTelemetry collector; without it nothing is traced. */
  otlpEndpoint?: string | undefined;
  /** grpc.reflection beside the services. */
  reflection: boolean;
  logLevel: string;
}

export interface CheckedOptions extends CoordinatorOptions {
  security: Security;
}

const WORKERS_OR_NATS =
  "give either workers (host:port,… by rank) or nats with tensor-parallel (workers found through NATS)";

/** Ranks that hold the decoder. */
export function tensorParallelSize(options: CoordinatorOptions): number {
  const { workers, tensorParallel, visionWorkers = 0 } = options;
  return workers === undefined ? (tensorParallel ?? 0) : workers.length - visionWorkers;
}

function visionProblems({ workers, vision, visionWorkers }: CoordinatorOptions): string[] {
  if (visionWorkers === undefined) return [];
  const problems: string[] = [];
  if (workers !== undefined && visionWorkers >= workers.length)
    problems.push(
      `vision-workers: ${visionWorkers} of ${workers.length} workers, one at least must hold the decoder`,
    );
  if (vision !== undefined && vision !== "auto")
    problems.push(`vision: ${vision} beside vision-workers ${visionWorkers}, give one of them`);
  return problems;
}

function membershipProblems(options: CoordinatorOptions): string[] {
  const { workers, nats, group, tensorParallel, heartbeatMs } = options;
  if (workers !== undefined && nats !== undefined)
    return [`workers and nats exclude each other: ${WORKERS_OR_NATS}`];
  if (workers === undefined && nats === undefined)
    return [`workers and nats are both missing: ${WORKERS_OR_NATS}`];
  if (nats === undefined)
    return Object.entries({ group, "tensor-parallel": tensorParallel, "heartbeat-ms": heartbeatMs })
      .filter(([, value]) => value !== undefined)
      .map(([name]) => `${name}: needs nats`);
  const problems = [
    tensorParallel === undefined ? "tensor-parallel: is missing, nats needs it" : undefined,
    group === undefined ? undefined : groupNameProblem(group),
    heartbeatMs === undefined ? undefined : heartbeatIntervalProblem(heartbeatMs),
  ];
  return problems.filter((problem) => problem !== undefined);
}

function endpointProblems(endpoint: string): string[] {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return [];
  return [`otlp-endpoint: ${JSON.stringify(endpoint)}, must be a URL as http://127.0.0.1:4318`];
}

/** An origin is a scheme, a host and perhaps a port, as browsers send it. */
function corsProblems({ corsOrigins = [] }: CoordinatorOptions): string[] {
  return corsOrigins
    .filter(
      (origin) => origin !== "*" && (!URL.canParse(origin) || new URL(origin).origin !== origin),
    )
    .map((origin) => `cors-origin: ${JSON.stringify(origin)}, must be as https://host:port, or *`);
}

function speculateProblems({ speculate = 0 }: CoordinatorOptions): string[] {
  if (Number.isSafeInteger(speculate) && speculate >= 0 && speculate <= MAX_DRAFTS) return [];
  return [`speculate: ${speculate}, must be a whole number, 0 to ${MAX_DRAFTS}`];
}

/** Every problem, and the files of keys and certificates as they were read. */
export function examineOptions(options: CoordinatorOptions): {
  problems: string[];
  security: Security;
} {
  const { problems: insecure, ...security } = readSecurity(options);
  const problems = [...membershipProblems(options), ...visionProblems(options), ...insecure];
  const attempt = (work: () => unknown) => {
    try {
      work();
    } catch (error) {
      problems.push(ServeError.from(error).message);
    }
  };
  const { listen, healthListen, httpListen, nats, keys, tls, insecureBind } = options;
  // What is given counts: a file with problems is not also one that is missing.
  const guarded = (field: string, text: string, guards: Record<string, boolean>) =>
    attempt(() => {
      const { host } = parseAddress(text, field);
      problems.push(...bindProblems([{ field, host, guards, insecureBind }]));
    });
  const front = frontGuards({ keys: keys !== undefined, tls: tls?.cert !== undefined });
  const peer = peerGuards({ mutualTls: tls?.ca !== undefined });
  guarded("listen", listen, front);
  if (httpListen !== undefined) guarded("http", httpListen, front);
  problems.push(...corsProblems(options));
  if (options.dataDir !== undefined && httpListen === undefined)
    problems.push("data-dir: needs http, whose routes read and write it");
  if (healthListen !== undefined) attempt(() => parseAddress(healthListen, "health-listen"));
  for (const address of options.workers ?? []) guarded("workers", address, peer);
  if (nats !== undefined) attempt(() => parseNatsUrl(nats));
  if (options.otlpEndpoint !== undefined) problems.push(...endpointProblems(options.otlpEndpoint));
  const whole = {
    "tensor-parallel": options.tensorParallel,
    "http-body-limit": options.httpBodyLimit,
    "max-batched-tokens": options.maxBatchedTokens,
    "max-sequences": options.maxSequences,
    "encode-budget-ms": options.encodeBudgetMs,
    "vision-workers": options.visionWorkers,
    "max-requests": options.maxRequests,
    "max-queued-tokens": options.maxQueuedTokens,
    "step-deadline-ms": options.stepDeadlineMs,
    "resume-grace-ms": options.resumeGraceMs,
  };
  for (const [name, value] of Object.entries(whole))
    if (value !== undefined && !(Number.isSafeInteger(value) && value > 0))
      problems.push(`${name}: ${value}, must be a whole number above 0`);
  problems.push(...speculateProblems(options));
  return { problems, security };
}

/** @throws ServeError CONFIGURATION with every problem */
export function checkOptions(options: CoordinatorOptions): CheckedOptions {
  const { problems, security } = examineOptions(options);
  if (problems.length > 0) throw new ServeError("CONFIGURATION", problems.join("; "));
  return { ...options, security };
}
