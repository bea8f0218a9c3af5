/** Flags of `tessera bench serve` → settings that cannot be wrong. All that is wrong is said at once. */
import type { ClientSecurityFlags } from "../commands/security-flags.js";
import { parseObjective, type Objective } from "./goodput.js";
import { MAX_LENGTH } from "./limits.js";
import type { LoadMode } from "./load.js";
import { MAX_SIDE, type PictureSize } from "./pictures.js";
import { modeOf, parseSweep, type Sweep } from "./sweep.js";
import type { ServerKind } from "./target.js";
import type { Length, WorkloadSettings } from "./workload.js";

/** As commander gives them. */
export interface BenchFlags extends ClientSecurityFlags {
  baseUrl?: string;
  server?: string;
  /** Of --base-url alone, where there is no `apiKey`. */
  openaiApiKey?: string;
  model?: string;
  endpoint: "chat" | "completions";
  serverKind: ServerKind | "auto";
  extraBody?: string;
  temperature: number;
  concurrency?: number;
  requestRate?: string;
  burstiness: number;
  numPrompts?: number;
  duration?: number;
  warmup: number;
  requestTimeout: number;
  seed: number;
  inputLen: string;
  outputLen: string;
  imageShare: number;
  imageSize: string;
  imageCount: number;
  prefixShare: number;
  prefixLen: number;
  prefixCount: number;
  dataset?: string;
  goodput?: string[];
  sweep?: string[];
  json?: string;
  details?: boolean;
  plot?: string;
}

export interface BenchSettings {
  address: { kind: "http"; baseUrl: URL } | { kind: "grpc"; server: string };
  extraBody: Record<string, unknown>;
  /** One, or those of the sweep. */
  points: { value: number | undefined; mode: LoadMode }[];
  sweep: Sweep | undefined;
  /** Of each point. */
  promptCount: number;
  durationMs: number | undefined;
  workload: WorkloadSettings;
  pictureSizes: PictureSize[];
  objective: Objective | undefined;
  plotFormat: "svg" | "png" | undefined;
}

/** Prompts of a load that neither --num-prompts nor --duration bounds. */
export const DEFAULT_PROMPTS = 200;

/** Runs each check; what they throw is thrown together. */
class Problems {
  private readonly found: string[] = [];
  try<T>(check: () => T): T | undefined {
    try {
      return check();
    } catch (error) {
      this.add(error instanceof Error ? error.message : String(error));
      return undefined;
    }
  }
  add(problem: string): void {
    this.found.push(problem);
  }
  /** @throws Error */
  end(): void {
    if (this.found.length > 0) throw new Error(`bench serve: ${this.found.join("\n  ")}`);
  }
}

/** `mean` or `mean:spread`. @throws Error */
export function parseLength(flag: string, text: string): Length {
  const match = /^(\d{1,9})(?::(\d{1,9}))?$/.exec(text);
  const [mean, spread] = [Number(match?.[1] ?? NaN), Number(match?.[2] ?? 0)];
  if (!(mean >= 1 && mean + spread <= MAX_LENGTH && spread < mean))
    throw new Error(
      `${flag} ${text}: must be tokens, or tokens:spread with a smaller spread, at most ${MAX_LENGTH} together`,
    );
  return { mean, spread };
}

/** `640x480,1024x1024`. @throws Error */
export function parseSizes(text: string): PictureSize[] {
  return text.split(",").map((size) => {
    const match = /^(\d{1,5})x(\d{1,5})$/.exec(size.trim());
    const [width, height] = [Number(match?.[1] ?? NaN), Number(match?.[2] ?? NaN)];
    if (!(width >= 1 && height >= 1 && width <= MAX_SIDE && height <= MAX_SIDE))
      throw new Error(
        `--image-size ${size}: must be WIDTHxHEIGHT, each 1 to ${MAX_SIDE}, as 640x480`,
      );
    return { width, height };
  });
}

/** @throws Error */
export function parseRate(text: string): number {
  const rate = text === "inf" ? Infinity : text.trim() === "" ? NaN : Number(text);
  if (!(rate > 0) || (rate === Infinity && text !== "inf"))
    throw new Error(`--request-rate ${text}: must be requests a second above 0, or inf`);
  return rate;
}

function parseExtraBody(text: string | undefined): Record<string, unknown> {
  if (text === undefined) return {};
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json === "object" && json !== null && !Array.isArray(json))
      return json as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw new Error(`--extra-body ${text}: must be a JSON object`);
}

function parseAddress(flags: BenchFlags): BenchSettings["address"] {
  const { baseUrl, server } = flags;
  if (server !== undefined && baseUrl !== undefined)
    throw new Error("--base-url, --server: give one of them");
  if (server !== undefined) {
    if (!/^.+:\d{1,5}$/.test(server)) throw new Error(`--server ${server}: must be host:port`);
    return { kind: "grpc", server };
  }
  if (baseUrl === undefined)
    throw new Error("give --base-url of an OpenAI-compatible server, or --server of a cluster");
  const url = URL.canParse(baseUrl) ? new URL(baseUrl) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol))
    throw new Error(`--base-url ${baseUrl}: must be a URL as http://127.0.0.1:8000/v1`);
  if (url.username !== "" || url.password !== "" || url.search !== "")
    throw new Error("--base-url: must have no user, password or query; the key goes to --api-key");
  const { tls, tlsCa, tlsCert, tlsKey, tlsServerName } = flags;
  if (url.protocol === "http:" && (tls ?? tlsCa ?? tlsCert ?? tlsKey ?? tlsServerName))
    throw new Error("--tls…: --base-url is plain http:, TLS is of https:");
  return { kind: "http", baseUrl: url };
}

function parseMode(flags: BenchFlags): LoadMode {
  const { concurrency, requestRate, burstiness } = flags;
  if (concurrency !== undefined && requestRate !== undefined)
    throw new Error("--concurrency, --request-rate: a load is closed or open, give one of them");
  if (concurrency !== undefined) return { kind: "closed", concurrency };
  return { kind: "open", rate: parseRate(requestRate ?? "inf"), burstiness };
}

function plotFormatOf(path: string | undefined): BenchSettings["plotFormat"] {
  if (path === undefined) return undefined;
  if (path.endsWith(".svg")) return "svg";
  if (path.endsWith(".png")) return "png";
  throw new Error(`--plot ${path}: must end in .svg or .png`);
}

/** What two flags say together. */
function checkTogether(flags: BenchFlags, problems: Problems): void {
  if (flags.sweep !== undefined && (flags.concurrency ?? flags.requestRate) !== undefined)
    problems.add("--sweep sets the load: --concurrency and --request-rate are not given beside it");
  if (flags.endpoint === "completions" && flags.imageShare > 0)
    problems.add("--image-share: completions take no pictures, --endpoint chat does");
  if (flags.server !== undefined && flags.endpoint !== "chat")
    problems.add("--endpoint: of --base-url, not of --server");
  if (flags.server !== undefined && flags.serverKind !== "auto")
    problems.add("--server-kind: of --base-url, not of --server");
  if (flags.server !== undefined && flags.extraBody !== undefined)
    problems.add("--extra-body: of --base-url, not of --server");
  if (flags.prefixShare > 0 && flags.prefixLen === 0)
    problems.add("--prefix-share: needs --prefix-len above 0");
  if (flags.details === true && flags.json === undefined)
    problems.add("--details: needs --json, whose file has them");
  const made = flags.imageShare > 0 || flags.prefixShare > 0;
  if (flags.dataset !== undefined && made)
    problems.add(
      "--dataset: its lines are sent as they are, without --image-share, --prefix-share",
    );
}

/** All at once, without an end, is no load. */
function checkBounded(
  flags: BenchFlags,
  points: BenchSettings["points"],
  problems: Problems,
): void {
  const atOnce = points.some(({ mode }) => mode.kind === "open" && mode.rate === Infinity);
  if (atOnce && flags.duration !== undefined && flags.numPrompts === undefined)
    problems.add("--duration: needs --num-prompts, --request-rate below inf, or --concurrency");
}

function pointsOf(flags: BenchFlags, sweep: Sweep | undefined): BenchSettings["points"] {
  if (sweep === undefined) return [{ value: undefined, mode: parseMode(flags) }];
  const { burstiness } = flags;
  return sweep.values.map((value) => ({ value, mode: modeOf(sweep, value, burstiness) }));
}

/** @throws Error with one line a problem. */
export function readSettings(flags: BenchFlags): BenchSettings {
  const problems = new Problems();
  checkTogether(flags, problems);
  const { goodput, numPrompts, duration } = flags;
  const sweep = problems.try(() => (flags.sweep ? parseSweep(flags.sweep) : undefined));
  const address = problems.try(() => parseAddress(flags));
  const points = problems.try(() => pointsOf(flags, sweep));
  const inputLength = problems.try(() => parseLength("--input-len", flags.inputLen));
  const outputLength = problems.try(() => parseLength("--output-len", flags.outputLen));
  const pictureSizes = problems.try(() => parseSizes(flags.imageSize));
  const extraBody = problems.try(() => parseExtraBody(flags.extraBody));
  const objective = problems.try(() => (goodput ? parseObjective(goodput) : undefined));
  const plotFormat = problems.try(() => plotFormatOf(flags.plot));
  if (points !== undefined) checkBounded(flags, points, problems);
  problems.end();
  if (!address || !points || !inputLength || !outputLength || !pictureSizes || !extraBody)
    throw new Error("bench serve: settings that were checked are not there");
  return {
    address,
    extraBody,
    points,
    sweep,
    promptCount: numPrompts ?? (duration === undefined ? DEFAULT_PROMPTS : Infinity),
    durationMs: duration === undefined ? undefined : duration * 1e3,
    workload: {
      seed: flags.seed,
      inputLength,
      outputLength,
      imageShare: flags.imageShare,
      prefixShare: flags.prefixShare,
      prefixTokens: flags.prefixLen,
      prefixCount: flags.prefixCount,
    },
    pictureSizes,
    objective,
    plotFormat,
  };
}
