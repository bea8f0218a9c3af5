/** A thread with XGrammar in it: compiles, and steps matchers. Started by `ThreadSeat`. */
import { parentPort, workerData } from "node:worker_threads";
import type { CompiledGrammar, GrammarCompiler, GrammarMatcher } from "@mlc-ai/web-xgrammar";
import { BYTE_LETTERS } from "../request/byte-letters.js";
import type { ConstraintSpec, TokenAhead } from "../request/constraint.js";
import type { FromThread, MatcherState, ThreadData, ToThread, WorkItem } from "./protocol.js";
import { Refusal } from "./refusal.js";
import { readConstraint, type CompilerInput } from "./source.js";
import { TokenFilter, tokenBytes } from "./token-filter.js";
import { Utf8Filter } from "./utf8-filter.js";
import { loadXGrammar, reasonOf, type LoadedXGrammar } from "./xgrammar.js";

interface KeptGrammar {
  compiled: CompiledGrammar;
  filter: TokenFilter | undefined;
}

/** Of looking ahead, for all matchers of a message together: the step waits for their masks. */
const AHEAD_MS = 1.5;

/** What `AHEAD_MS` has left. */
interface AheadBudget {
  leftMs: number;
}

function allows(mask: Uint8Array, id: number): boolean {
  return (((mask[id >> 3] ?? 0) >> (id & 7)) & 1) === 1;
}

interface OpenMatcher {
  grammarId: number;
  matcher: GrammarMatcher;
  position: number;
  filter: TokenFilter | undefined;
  tail: Buffer;
  /** 0 before the first token. */
  lastByte: number;
}

class GrammarThread {
  private readonly grammars = new Map<number, KeptGrammar>();
  private readonly matchers = new Map<number, OpenMatcher>();
  private readonly utf8: Utf8Filter;

  private constructor(
    private readonly data: ThreadData,
    private readonly loaded: LoadedXGrammar,
    private readonly compiler: GrammarCompiler,
  ) {
    this.utf8 = new Utf8Filter(data.vocabulary);
  }

  static async start(data: ThreadData): Promise<GrammarThread> {
    const loaded = await loadXGrammar(data.limits.threadBytes);
    const { TokenizerInfo, GrammarCompiler: Compiler } = loaded.library;
    const names = byteLevelNames(data);
    const stops = [...data.stopTokenIds];
    const info = await TokenizerInfo.createTokenizerInfo(
      names,
      "byte_level",
      false,
      names.length,
      stops,
    );
    // Compiled grammars are kept by the engine's choice, per tenant.
    return new GrammarThread(data, loaded, await Compiler.createGrammarCompiler(info, false));
  }

  async handle(message: ToThread): Promise<FromThread> {
    const grammarId = "grammarId" in message ? message.grammarId : -1;
    try {
      return await this.answer(message);
    } catch (error) {
      if (error instanceof Refusal)
        return { kind: "refused", grammarId, message: error.message, path: error.path };
      const output = this.loaded.takeOutput();
      // What the library throws as a number is a C++ exception, whose text this build does not hand out.
      const said = error instanceof Error ? error.message : "XGrammar does not take it";
      const why = reasonOf(output) ?? said;
      const at = grammarId === -1 ? Atomics.load(this.data.progress, 1) : grammarId;
      return { kind: "broken", grammarId: at, message: why };
    }
  }

  private async answer(message: ToThread): Promise<FromThread> {
    switch (message.kind) {
      case "compile":
        return this.compile(message);
      case "load":
        this.begin(message.grammarId);
        await this.keep(message.grammarId, message.input);
        return { kind: "loaded", grammarId: message.grammarId };
      case "drop":
        this.grammars.get(message.grammarId)?.compiled.dispose();
        this.grammars.delete(message.grammarId);
        return { kind: "dropped", grammarId: message.grammarId };
      case "work":
        return this.work(message.items);
    }
  }

  /** Tells the watchdog what is worked on. */
  private begin(grammarId: number): void {
    Atomics.store(this.data.progress, 1, grammarId);
    Atomics.add(this.data.progress, 0, 1);
  }

  private async compile({ grammarId, spec }: ToThread & { kind: "compile" }): Promise<FromThread> {
    const start = performance.now();
    this.begin(grammarId);
    const input = this.read(spec);
    const { compiled } = await this.keep(grammarId, input);
    const matcher = await this.newMatcher(compiled);
    await matcher.getNextTokenBitmask();
    matcher.dispose();
    return { kind: "compiled", grammarId, input, tookMs: performance.now() - start };
  }

  private read(spec: ConstraintSpec): CompilerInput {
    try {
      return readConstraint(spec, this.data.limits);
    } catch (error) {
      if (error instanceof RangeError) throw new Refusal(`nested too deep (${error.message})`);
      throw error;
    }
  }

  private async keep(grammarId: number, input: CompilerInput): Promise<KeptGrammar> {
    const compiled =
      input.kind === "ebnf"
        ? await this.compiler.compileGrammar(input.text)
        : await this.compiler.compileStructuralTag(input.text);
    const filter =
      input.forbidden.length === 0
        ? undefined
        : new TokenFilter(input.forbidden, this.data.vocabulary);
    const kept = { compiled, filter };
    this.grammars.set(grammarId, kept);
    return kept;
  }

  private newMatcher(compiled: CompiledGrammar): Promise<GrammarMatcher> {
    const stops = [...this.data.stopTokenIds];
    return this.loaded.library.GrammarMatcher.createGrammarMatcher(compiled, stops, false);
  }

  private async work(items: readonly WorkItem[]): Promise<FromThread> {
    const states: MatcherState[] = [];
    const masks: Uint8Array[] = [];
    const budget: AheadBudget = { leftMs: AHEAD_MS };
    const indexOf = (mask: Uint8Array) => {
      const known = masks.findIndex((other) => Buffer.compare(other, mask) === 0);
      return known === -1 ? masks.push(mask) - 1 : known;
    };
    for (const item of items) {
      if (item.kind === "close") {
        this.matchers.get(item.matcherId)?.matcher.dispose();
        this.matchers.delete(item.matcherId);
        continue;
      }
      const start = performance.now();
      const [state, mask] = await this.step(item);
      const tookMs = performance.now() - start;
      const known = mask === undefined ? {} : { mask: indexOf(mask) };
      const behind =
        item.kind === "accept" && mask !== undefined ? await this.ahead(item, mask, budget) : [];
      const ahead = behind.map(({ mask: next, ...rest }) => ({ ...rest, mask: indexOf(next) }));
      states.push({ ...state, ...known, ahead, tookMs });
    }
    const joined = new Uint8Array(masks.reduce((sum, mask) => sum + mask.length, 0));
    masks.forEach((mask, i) => joined.set(mask, i * mask.length));
    return { kind: "worked", states, masks: joined.buffer };
  }

  private async step(
    item: WorkItem & { kind: "open" | "accept" },
  ): Promise<[Omit<MatcherState, "tookMs">, Uint8Array?]> {
    const { matcherId } = item;
    const open = item.kind === "open" ? await this.open(item) : this.matchers.get(matcherId);
    if (open === undefined) throw new Error(`matcher ${matcherId} is not open`);
    this.begin(open.grammarId);
    const tokens = item.kind === "open" ? item.tokens : item.tokenIds;
    for (const tokenId of tokens)
      if (!this.accept(open, tokenId))
        return [{ matcherId, position: open.position, state: "rejected", mayEnd: false }];
    const at = { matcherId, position: open.position, mayEnd: false };
    if (open.matcher.isTerminated()) return [{ ...at, state: "ended" }];
    const mask = await this.mask(open);
    if (mask === undefined) return [{ ...at, state: "stuck" }];
    return [{ ...at, state: "mask", mayEnd: this.mayEnd(mask) }, mask];
  }

  private mayEnd(mask: Uint8Array): boolean {
    return this.data.stopTokenIds.some((id) => allows(mask, id));
  }

  private accept(open: OpenMatcher, tokenId: number): boolean {
    if (!open.matcher.acceptToken(tokenId)) return false;
    open.position++;
    open.lastByte = tokenBytes(this.data.vocabulary, tokenId).at(-1) ?? open.lastByte;
    if (open.filter !== undefined) open.tail = open.filter.tail(open.tail, tokenId);
    return true;
  }

  /** Masks behind the first of `item.ahead` that the grammar takes; the matcher then stands where it stood. */
  private async ahead(
    item: WorkItem & { kind: "accept" },
    first: Uint8Array,
    budget: AheadBudget,
  ): Promise<TokenAhead[]> {
    const open = this.matchers.get(item.matcherId);
    if (open === undefined || item.ahead.length === 0) return [];
    const { position, lastByte, tail } = open;
    const found: TokenAhead[] = [];
    const start = performance.now();
    let mask = first;
    for (const tokenId of item.ahead) {
      const ends = this.data.stopTokenIds.includes(tokenId);
      if (ends || !allows(mask, tokenId) || performance.now() - start > budget.leftMs) break;
      this.begin(open.grammarId);
      if (!this.accept(open, tokenId)) break;
      const next = await this.mask(open);
      if (next === undefined) break;
      mask = next;
      found.push({ tokenId, mask, mayEnd: this.mayEnd(mask) });
    }
    if (open.position > position) open.matcher.rollBack(open.position - position);
    Object.assign(open, { position, lastByte, tail });
    budget.leftMs -= performance.now() - start;
    return found;
  }

  private async open(item: WorkItem & { kind: "open" }): Promise<OpenMatcher> {
    const grammar = this.grammars.get(item.grammarId);
    if (grammar === undefined) throw new Error(`grammar ${item.grammarId} is not there`);
    this.begin(item.grammarId);
    const matcher = await this.newMatcher(grammar.compiled);
    const { filter } = grammar;
    const { grammarId } = item;
    const start = { position: 0, tail: Buffer.alloc(0), lastByte: 0 };
    const open = { grammarId, matcher, filter, ...start };
    this.matchers.set(item.matcherId, open);
    return open;
  }

  /** Undefined when no token may come. */
  private async mask({
    matcher,
    filter,
    tail,
    lastByte,
  }: OpenMatcher): Promise<Uint8Array | undefined> {
    const words = await matcher.getNextTokenBitmask();
    const tokenCount = this.data.vocabulary.ends.length;
    const bytes = new Uint8Array(words.buffer, words.byteOffset, Math.ceil(tokenCount / 8));
    const spare = bytes.length * 8 - tokenCount;
    const last = bytes.length - 1;
    bytes[last] = (bytes[last] ?? 0) & (0xff >> spare);
    filter?.apply(bytes, tail);
    this.utf8.apply(bytes, lastByte);
    return bytes.some((byte) => byte !== 0) ? bytes : undefined;
  }
}

/** Byte-level BPE's letters, which XGrammar turns back into bytes. Empty names are never allowed. */
function byteLevelNames({ vocabulary }: ThreadData): string[] {
  return Array.from({ length: vocabulary.ends.length }, (_, id) =>
    Array.from(tokenBytes(vocabulary, id), (byte) => BYTE_LETTERS[byte] ?? "").join(""),
  );
}

async function main(): Promise<void> {
  const port = parentPort;
  if (port === null) throw new Error("grammar-thread runs as a worker thread");
  const thread = await GrammarThread.start(workerData as ThreadData);
  let tail = Promise.resolve();
  const answer = async (message: ToThread): Promise<void> => {
    const reply = await thread.handle(message);
    port.postMessage(reply, reply.kind === "worked" ? [reply.masks] : []);
  };
  // One after the other: the library's calls are async in name, and share one instance.
  port.on("message", (message: ToThread) => {
    tail = tail.then(() => answer(message));
  });
  port.postMessage({ kind: "ready" } satisfies FromThread);
}

await main();
