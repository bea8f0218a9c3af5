/** Everything `tessera doctor` looks at, in the order it is shown. */
import { readFile } from "node:fs/promises";
import type { CpuKind } from "@tessera/shard-worker";
import { atLeast, missing, note, ok, versionIn, type Fact } from "./facts.js";
import { gpu, memory, portFact, processor, sharedMemory, system } from "./machine.js";
import { findProgram } from "./programs.js";

export interface ExamineOptions {
  ports: number[];
  /** The PATH programs are looked for on. */
  path: string;
  nodeVersion: string;
  /** Loads the native addon and says which kernels it chooses. */
  cpuKind: () => CpuKind;
  /** What TESSERA_CPU forces, if anything. */
  forcedCpu: string | undefined;
}

const KINDS = ["scalar", "avx2", "avx512"] as const;
/** KV revisions and heartbeats work from here on. */
const LEAST_NATS = "2.9";
const BUILD = "run: make build";

/** The native addon, and the kernels that it chooses here. */
function native({ cpuKind, forcedCpu }: ExamineOptions): Fact[] {
  try {
    const kind = cpuKind();
    const kinds = KINDS.slice(0, KINDS.indexOf(kind) + 1).join(", ");
    const kernels = forcedCpu === undefined ? `${kind} (of ${kinds})` : `${kind} by TESSERA_CPU`;
    return [ok("native addon", "loads"), ok("kernels", kernels)];
  } catch (error) {
    const why = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    if (forcedCpu !== undefined && why.includes("TESSERA_CPU"))
      return [ok("native addon", "loads"), missing("kernels", why, "unset TESSERA_CPU")];
    return [missing("native addon", `does not load: ${why}`, BUILD)];
  }
}

interface Tool {
  name: string;
  programs: string[];
  install: string;
}
const TOOLS: Tool[] = [
  {
    name: "compiler",
    programs: ["g++", "clang++"],
    install: "a C++20 compiler (Debian: apt-get install g++)",
  },
  { name: "cmake", programs: ["cmake"], install: "cmake (Debian: apt-get install cmake)" },
  { name: "make", programs: ["make"], install: "make (Debian: apt-get install make)" },
];

/** What a build needs; only a build that is still to be made makes it needed. */
async function tool({ name, programs, install }: Tool, path: string, built: boolean) {
  const found: string[] = [];
  for (const program of programs) {
    const at = await findProgram(program, path);
    if (at !== undefined) found.push(`${program} ${at.version ?? "of unknown version"}`);
  }
  if (found.length > 0) return ok(name, found.join(", "));
  const value = `none of ${programs.join(", ")}`;
  return built
    ? note(name, value, `to build again, install ${install}`)
    : missing(name, value, `install ${install}`);
}

async function nats(path: string): Promise<Fact> {
  const found = await findProgram("nats-server", path);
  const hint = "only a cluster found by --nats needs it (Debian: apt-get install nats-server)";
  if (found === undefined) return note("nats-server", "none", hint);
  const value = `${found.version ?? "of unknown version"}, ${found.path}`;
  if (found.version !== undefined && atLeast(found.version, LEAST_NATS))
    return ok("nats-server", value);
  return note("nats-server", value, `membership needs ${LEAST_NATS} or newer`);
}

async function neededNode(): Promise<string> {
  const text = await readFile(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { engines: { node: string } }).engines.node;
}

export async function examine(options: ExamineOptions): Promise<Fact[]> {
  const { path, ports } = options;
  const needed = await neededNode();
  const isNew = atLeast(versionIn(options.nodeVersion) ?? "0", versionIn(needed) ?? "0");
  const addon = native(options);
  const built = addon[0]?.state === "ok";
  return [
    ...system(options.nodeVersion, needed, isNew),
    ...processor(),
    ...addon,
    ...(await memory()),
    await sharedMemory(),
    ...(await Promise.all(TOOLS.map((each) => tool(each, path, built)))),
    await nats(path),
    ...(await Promise.all(ports.map(portFact))),
    await gpu(path),
  ];
}
