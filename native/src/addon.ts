/** Loads the compiled addon once a thread. */
import { createRequire } from "node:module";
import type * as engine from "./engine.js";
import type * as image from "./image.js";

interface Addon {
  openEngine: typeof engine.openEngine;
  cpuKind: typeof engine.cpuKind;
  attachExchange: typeof engine.attachExchange;
  deliver: typeof engine.deliver;
  shareMemory: typeof engine.shareMemory;
  measureCeilings: typeof engine.measureCeilings;
  resizeBicubic: typeof image.resizeBicubic;
  normalise: typeof image.normalise;
}

let addon: Addon | undefined;

export function loadAddon(): Addon {
  addon ??= createRequire(import.meta.url)("../build/tessera.node") as Addon;
  return addon;
}
