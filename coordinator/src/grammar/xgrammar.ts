/** `@mlc-ai/web-xgrammar` in a thread: a UMD bundle around a WASM build without exceptions, where an error aborts. */
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { pathToFileURL } from "node:url";
import type * as Library from "@mlc-ai/web-xgrammar";

export type XGrammar = typeof Library;

const MAX_LINES = 16;
const PAGE_BYTES = 65_536;

export interface LoadedXGrammar {
  library: XGrammar;
  /** What it has written since the last call: the reason of an abort. */
  takeOutput(): string;
}

/** Once a thread. `memoryBytes`: of its WASM memory; an allocation beyond aborts. */
export async function loadXGrammar(memoryBytes: number): Promise<LoadedXGrammar> {
  const lines: string[] = [];
  // The bundle binds console.error at its start; warnings and the reason of an abort come that way.
  console.error = (...parts: unknown[]) => {
    lines.push(parts.map(String).join(" "));
    if (lines.length > MAX_LINES) lines.shift();
  };
  boundMemory(memoryBytes);
  const require = createRequire(import.meta.url);
  const path = require.resolve("@mlc-ai/web-xgrammar");
  // Its bundle is CommonJS under an ESM name: it looks for these, and leaves itself on globalThis.
  Object.assign(globalThis, { require, __filename: path, __dirname: dirname(path) });
  await import(pathToFileURL(path).href);
  const { xgrammar } = globalThis as unknown as { xgrammar: XGrammar };
  return { library: xgrammar, takeOutput: () => lines.splice(0).join("\n") };
}

/** Node has it; the compiler's library `ES2023` does not name it. */
interface WasmMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

/** `resourceLimits` of a Worker do not count WASM memory. */
function boundMemory(memoryBytes: number): void {
  const { prototype } = (
    globalThis as unknown as { WebAssembly: { Memory: { prototype: WasmMemory } } }
  ).WebAssembly.Memory;
  const grow = Reflect.get<WasmMemory, "grow">(prototype, "grow");
  prototype.grow = function (this: WasmMemory, pages: number) {
    if (this.buffer.byteLength + pages * PAGE_BYTES > memoryBytes)
      throw new RangeError(`more than ${memoryBytes} bytes of WASM memory`);
    return grow.call(this, pages);
  };
}

/** `[FATAL] …/grammar_parser.cc:552: text` → `text`. */
export function reasonOf(output: string): string | undefined {
  return /\[FATAL\] \S+\.(?:cc|h):\d+: (.*)/.exec(output)?.[1];
}
