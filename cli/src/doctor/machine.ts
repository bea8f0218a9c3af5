/** The machine itself: processor, memory, shared memory, ports, GPU. Linux says most; others are asked for less. */
import { access, readFile, statfs } from "node:fs/promises";
import { createServer } from "node:net";
import { arch, availableParallelism, cpus, freemem, platform, totalmem } from "node:os";
import { missing, note, ok, type Fact } from "./facts.js";
import { findProgram, outputOf } from "./programs.js";

const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
/** Below this the bundled model does not run well. */
const LEAST_MEMORY_BYTES = 2 ** 30;

async function textOf(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}

export function processor(): Fact[] {
  const model = cpus()[0]?.model.trim() ?? "";
  const name = model === "" || model === "unknown" ? arch() : model;
  return [ok("cpu", `${name}, ${arch()}`), ok("cores", String(availableParallelism()))];
}

/** Pages of 2 MiB: reserved ones, and whether the kernel gives them by itself. */
async function hugePages(info: string): Promise<Fact> {
  const number = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(info)?.[1]);
  const transparent = await textOf("/sys/kernel/mm/transparent_hugepage/enabled");
  const mode = /\[(\w+)\]/.exec(transparent)?.[1];
  const total = number("HugePages_Total") || 0;
  const reserved = `${number("HugePages_Free") || 0} of ${total} reserved pages free`;
  if (mode === undefined && total === 0) return note("huge pages", "none");
  const value = `transparent: ${mode ?? "unknown"}; ${reserved}`;
  if (mode !== "never" || total > 0) return ok("huge pages", value);
  return note(
    "huge pages",
    value,
    "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled makes weights faster to read",
  );
}

export async function memory(): Promise<Fact[]> {
  const info = await textOf("/proc/meminfo");
  const available = Number(/^MemAvailable:\s+(\d+) kB/m.exec(info)?.[1]) * 1024 || freemem();
  const value = `${gib(available)} free of ${gib(totalmem())}`;
  const room =
    available < LEAST_MEMORY_BYTES
      ? note("memory", value, "a worker needs its part of the weights and its cache: tessera plan")
      : ok("memory", value);
  return [room, await hugePages(info)];
}

export async function sharedMemory(): Promise<Fact> {
  try {
    const { bsize, blocks, bavail } = await statfs("/dev/shm");
    return ok("/dev/shm", `${gib(bavail * bsize)} free of ${gib(blocks * bsize)}`);
  } catch {
    return note("/dev/shm", "none", "ranks on this machine exchange over gRPC");
  }
}

/** The error's code when 127.0.0.1 does not give the port. */
function busy(port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(undefined)));
  });
}

export async function portFact(port: number): Promise<Fact> {
  const reason = await busy(port);
  if (reason === undefined) return ok(`port ${port}`, "free");
  const value = reason === "EADDRINUSE" ? "in use" : `cannot be had: ${reason}`;
  return note(`port ${port}`, value, "give another one with --port");
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

/** Names the GPUs, or says why there is none. */
export async function gpu(path: string): Promise<Fact> {
  const backend = "this version computes on the CPU";
  const tool = await findProgram("nvidia-smi", path);
  const listed = tool === undefined ? undefined : await outputOf(tool.path, ["-L"]);
  const names = [...(listed ?? "").matchAll(/^GPU \d+: (.*?) \(/gm)].map(([, name]) => name);
  if (names.length > 0) return note("gpu", `${names.join(", ")}; ${backend}`);
  const driver = await exists("/proc/driver/nvidia/version");
  const device = await exists("/dev/nvidia0");
  const why = !driver
    ? "no NVIDIA driver is loaded (/proc/driver/nvidia/version is not there)"
    : !device
      ? "the NVIDIA driver is loaded, but /dev/nvidia0 is not there"
      : "nvidia-smi is missing or lists no GPU";
  return note("gpu", `none: ${why}; ${backend}`);
}

export function system(nodeVersion: string, needed: string, isNew: boolean): Fact[] {
  const where = ok("system", `${platform()} ${arch()}`);
  const node = `${nodeVersion} (needs ${needed})`;
  if (isNew) return [where, ok("node", node)];
  return [where, missing("node", node, `install Node.js ${needed}: https://nodejs.org`)];
}
