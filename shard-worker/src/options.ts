/** Settings of a worker; checked at start, all problems reported at once. */
import { accessSync, constants } from "node:fs";
import { cpuKind } from "@tessera/native/engine";
import {
  bindProblems,
  parseAddress,
  peerGuards,
  peerTlsOf,
  readTls,
  ServeError,
  type Address,
  type PeerTls,
  type TlsFiles,
} from "@tessera/proto";
import {
  groupNameProblem,
  HEARTBEAT_INTERVAL_MS,
  heartbeatIntervalProblem,
} from "@tessera/proto/membership";
import { parseNatsUrl } from "@tessera/proto/nats-server";
import { SHARED_DIR, type Transport } from "./transport.js";

export interface WorkerOptions {
  modelDir: string;
  /** host:port; port 0 takes a free one. */
  listen: string;
  /**
   * host:port others reach this worker under (its host for the peers too); port 0 stands for the port it listens on.
   * Default: the address it listens on.
   */
  advertise?: string | undefined;
  /** nats://host:port: the rank is taken by a lease there; absent: the coordinator was given this worker's address. */
  nats?: string | undefined;
  /** Of the workers and the coordinator that belong together on one NATS; default `default`. */
  group?: string | undefined;
  /** Between two heartbeats on NATS; default 500. */
  heartbeatMs?: number | undefined;
  threads: number;
  /** host:port of /metrics and the probes; absent: none. */
  healthListen?: string | undefined;
  /** What weights, cache, workspace and process may take; a join that needs more is refused. Default: no limit. */
  memoryBytes?: number | undefined;
  /** How long the exchange thread polls after a frame instead of sleeping; default: by the machine's cores. */
  exchangeSpinUs?: number | undefined;
  /** Of collectives to ranks of this machine; default auto. */
  transport?: Transport | undefined;
  /** Folder of shared memory, the same one for those that share it; default /dev/shm. */
  shmDir?: string | undefined;
  /** grpc.reflection beside the services; default: off. */
  reflection?: boolean | undefined;
  /** PEM files of mutual TLS on Shard and Exchange, all three; absent: plain text, on loopback only. */
  tls?: TlsFiles | undefined;
  /** Addresses beyond loopback go without certificates. */
  insecureBind?: boolean | undefined;
  logLevel: string;
}

export interface CheckedWorkerOptions {
  listen: Address;
  advertise: Address;
  healthListen: Address | undefined;
  nats: { url: string; group: string; heartbeatIntervalMs: number } | undefined;
  tls: PeerTls | undefined;
}

const MAX_THREADS = 1024;
const EVERYWHERE = new Set(["0.0.0.0", "::", "[::]"]);

function natsProblems(options: WorkerOptions): (string | undefined)[] {
  const { nats, group, heartbeatMs } = options;
  if (nats === undefined)
    return [
      group === undefined ? undefined : "group: needs nats",
      heartbeatMs === undefined ? undefined : "heartbeat-ms: needs nats",
    ];
  return [
    group === undefined ? undefined : groupNameProblem(group),
    heartbeatMs === undefined ? undefined : heartbeatIntervalProblem(heartbeatMs),
  ];
}

/** With `auto` a folder that will not do means gRPC. */
function sharingProblem({ transport, shmDir }: WorkerOptions): string | undefined {
  if (transport === "grpc") return shmDir === undefined ? undefined : "shm-dir: not with grpc";
  if (transport !== "shm") return undefined;
  const dir = shmDir ?? SHARED_DIR;
  try {
    accessSync(dir, constants.R_OK | constants.W_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    return `shm-dir: ${dir} will not do, transport shm needs it: ${String(error)}`;
  }
}

/** A worker's peers and its coordinator show certificates too, so it needs all three files. */
function readPeerTls(files: TlsFiles, problems: string[]): PeerTls | undefined {
  const given = Object.values(files).filter((path) => path !== undefined);
  const read = readTls(files);
  problems.push(...read.problems);
  if (given.length > 0 && files.ca === undefined)
    problems.push("tls-ca: is missing, a worker's callers show certificates that it signed");
  if (files.ca !== undefined && files.cert === undefined && files.key === undefined)
    problems.push("tls-ca: needs tls-cert and tls-key");
  return peerTlsOf(read);
}

/** Every problem; `checked` where there is none. */
export function examineWorkerOptions(options: WorkerOptions): {
  problems: string[];
  checked?: CheckedWorkerOptions;
} {
  const problems = [...natsProblems(options), sharingProblem(options)].filter(
    (problem) => problem !== undefined,
  );
  const attempt = <T>(work: () => T): T | undefined => {
    try {
      return work();
    } catch (error) {
      problems.push(ServeError.from(error).message);
      return undefined;
    }
  };
  const { nats: url, advertise: said, healthListen: health } = options;
  const tls = readPeerTls(options.tls ?? {}, problems);
  const guards = peerGuards({ mutualTls: options.tls?.ca !== undefined });
  const { insecureBind } = options;
  const guarded = (field: string, text: string) =>
    attempt(() => {
      const address = parseAddress(text, field);
      problems.push(...bindProblems([{ field, host: address.host, guards, insecureBind }]));
      return address;
    });
  const listen = guarded("listen", options.listen);
  const advertise = said === undefined ? listen : guarded("advertise", said);
  const healthListen =
    health === undefined ? undefined : attempt(() => parseAddress(health, "health-listen"));
  if (url !== undefined) attempt(() => parseNatsUrl(url));
  const { threads, memoryBytes: memory } = options;
  if (!Number.isSafeInteger(threads) || threads < 1 || threads > MAX_THREADS)
    problems.push(`threads: ${threads}, must be 1…${MAX_THREADS}`);
  if (memory !== undefined && !(memory > 0)) problems.push(`memory: ${memory}, must be above 0`);
  // TESSERA_CPU names kernels that this machine lacks, or none.
  attempt(() => cpuKind());
  if (url !== undefined && advertise !== undefined && EVERYWHERE.has(advertise.host))
    problems.push(
      `advertise: ${advertise.host} is no address to be told, give one that others reach`,
    );
  if (problems.length > 0 || listen === undefined || advertise === undefined) return { problems };
  const heartbeatIntervalMs = options.heartbeatMs ?? HEARTBEAT_INTERVAL_MS.default;
  const nats =
    url === undefined ? undefined : { url, group: options.group ?? "default", heartbeatIntervalMs };
  return { problems, checked: { listen, advertise, healthListen, nats, tls } };
}

/** @throws ServeError CONFIGURATION with every problem */
export function checkWorkerOptions(options: WorkerOptions): CheckedWorkerOptions {
  const { problems, checked } = examineWorkerOptions(options);
  if (checked === undefined) throw new ServeError("CONFIGURATION", problems.join("; "));
  return checked;
}
