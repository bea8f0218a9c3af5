/** Bounds of constraints; each is a refusal with its value in the text, never a silent cut. */
export interface GrammarLimits {
  /** UTF-8 bytes of a schema, pattern, grammar or tag. */
  sourceBytes: number;
  /** Nested arrays and objects of a schema's or a tag's JSON. */
  jsonDepth: number;
  /** Arrays, objects and values of a schema's or a tag's JSON. */
  jsonNodes: number;
  /** Rules of the grammar that a schema or a pattern becomes. */
  rules: number;
  /** Texts of a choice. */
  choices: number;
  /** From source to masks, in a thread of its own. */
  compileMs: number;
  /** What compiles within it is compiled once more beside the running matchers, which wait for it. */
  lightMs: number;
  /** One matcher's accept and mask. */
  stepMs: number;
  /** A mask that takes longer counts against its grammar; after some it gets a thread of its own. */
  slowMaskMs: number;
  /** WASM memory of one thread. */
  threadBytes: number;
  /** Threads that compile, or hold one slow grammar. */
  threads: number;
  /** Compiles of one tenant that wait; of all tenants. */
  waitingPerTenant: number;
  waiting: number;
  /** Compiled grammars kept for a tenant; for all. Those in use count and are never dropped. */
  keptPerTenant: number;
  kept: number;
  /** Matchers open at once. */
  matchers: number;
}

export const GRAMMAR_LIMITS: GrammarLimits = {
  sourceBytes: 65_536,
  jsonDepth: 32,
  jsonNodes: 8192,
  rules: 4096,
  choices: 1024,
  compileMs: 5000,
  lightMs: 100,
  stepMs: 2000,
  slowMaskMs: 25,
  threadBytes: 512 * 1024 * 1024,
  threads: 3,
  waitingPerTenant: 16,
  waiting: 64,
  keptPerTenant: 32,
  kept: 128,
  matchers: 4096,
};
