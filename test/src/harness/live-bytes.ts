/** What processes hold after garbage has been collected: the same whenever it is asked, if nothing leaks. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { eventually } from "./eventually.js";

export interface Held {
  /** Bytes of objects and buffers that can be reached. */
  live: number;
  /** Resident bytes that are not the heap's: buffers, native code's memory, the program. */
  native: number;
}

const HOOK = new URL("./live-hook.js", import.meta.url);

export class LiveBytes {
  private constructor(private readonly folder: string) {}

  /** Starts what `start` starts so that it can be asked. */
  static async around<T>(start: () => Promise<T>): Promise<[LiveBytes, T]> {
    const folder = await mkdtemp(join(tmpdir(), "tessera-live-"));
    const { NODE_OPTIONS } = process.env;
    const hook = new URL(HOOK);
    hook.searchParams.set("folder", folder);
    process.env["NODE_OPTIONS"] = [NODE_OPTIONS, `--import=${hook.href}`].join(" ").trim();
    try {
      return [new LiveBytes(folder), await start()];
    } finally {
      if (NODE_OPTIONS === undefined) delete process.env["NODE_OPTIONS"];
      else process.env["NODE_OPTIONS"] = NODE_OPTIONS;
    }
  }

  async of(pid: number): Promise<Held> {
    const path = join(this.folder, String(pid));
    await rm(path, { force: true });
    process.kill(pid, "SIGUSR2");
    let text = "";
    await eventually(`process ${pid} says what it holds`, async () => {
      text = await readFile(path, "utf8").catch(() => "");
      return text !== "";
    });
    const { rss, heapTotal, heapUsed, external } = JSON.parse(text) as NodeJS.MemoryUsage;
    return { live: heapUsed + external, native: rss - heapTotal };
  }

  end(): Promise<void> {
    return rm(this.folder, { recursive: true });
  }
}

/** What a heap may gain by warming up: compiled code, caches that fill. */
const LIVE_LIMIT_BYTES = 8 << 20;
/** What malloc keeps of buffers that have been freed. */
const NATIVE_LIMIT_BYTES = 192 << 20;

/** @throws AssertionError when a process holds more than before. → the greatest growth of one */
export function assertFlat(before: readonly Held[], after: readonly Held[]): Held {
  assert.equal(after.length, before.length);
  const growth = (kind: keyof Held) =>
    Math.max(...after.map((now, i) => now[kind] - (before[i]?.[kind] ?? NaN)));
  const [live, native] = [growth("live"), growth("native")];
  assert.ok(live <= LIVE_LIMIT_BYTES, `a process holds ${live} bytes more that can be reached`);
  assert.ok(native <= NATIVE_LIMIT_BYTES, `a process grew by ${native} bytes beside its heap`);
  return { live, native };
}
