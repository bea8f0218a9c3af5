/** The report for programs: settings, surroundings, numbers; no key. */
import { arch, cpus, platform, release, totalmem } from "node:os";
import type { RequestRecord } from "./record.js";
import type { LoadReport } from "./measure.js";
import type { BenchFlags } from "./settings.js";
import type { ServerInfo } from "./target.js";
import type { TokenFit } from "./words.js";

/** Of the shape below; rises when a reader must change. */
const FORMAT = 1;

export interface JsonPoint {
  value: number | undefined;
  report: LoadReport;
  /** With --details. */
  requests: readonly RequestRecord[] | undefined;
}

export interface JsonFacts {
  startedAt: Date;
  flags: BenchFlags;
  server: ServerInfo;
  workload: {
    fit: TokenFit;
    pictureCount: number;
    pictureBytes: number;
    datasetSha256: string | undefined;
  };
  points: readonly JsonPoint[];
}

/** Flags as they were taken; the keys stay out. */
function settingsOf(flags: BenchFlags): Omit<BenchFlags, "apiKey" | "openaiApiKey"> {
  const { apiKey: _key, openaiApiKey: _other, ...rest } = flags;
  return rest;
}

function environment() {
  const processors = cpus();
  return {
    node: process.version,
    platform: platform(),
    release: release(),
    architecture: arch(),
    cpu: processors[0]?.model.trim() ?? "unknown",
    cpuCount: processors.length,
    memoryBytes: totalmem(),
  };
}

/** JSON has no Infinity: it is the text that the flag has. */
function replacer(_key: string, value: unknown): unknown {
  return value === Infinity ? "inf" : value;
}

export function reportJson(facts: JsonFacts): string {
  const { startedAt, flags, server, workload, points } = facts;
  const body = {
    format: FORMAT,
    command: "tessera bench serve",
    startedAt: startedAt.toISOString(),
    environment: environment(),
    server,
    settings: settingsOf(flags),
    workload,
    points,
  };
  return `${JSON.stringify(body, replacer, 2)}\n`;
}
