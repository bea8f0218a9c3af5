/** Requests and sequences as the engine loop holds them. */
import type { Exemplar } from "../metrics/exemplar-histogram.js";
import type { Drafting } from "./drafting.js";
import type { RequestImages } from "./images.js";
import type { Claim } from "../schedule/fair-share.js";
import type { ScheduledSequence } from "../schedule/scheduler.js";
import type { Grammar, Matcher } from "../request/constraint.js";
import type {
  ChoiceText,
  FinishCause,
  PreparedRequest,
  SampledToken,
  TextPiece,
} from "../request/types.js";
import type { BlockKeys } from "./prefix.js";
import type { ServeError } from "@tessera/proto";

/** Where a request's events go; called in order. */
export interface RequestSink {
  /** Its first sequence is about to run: it waits no more. */
  begun(): void;
  /** Log-probabilities of the prompt's tokens from the second on, where they were asked for; before any piece. */
  promptScored(tokens: SampledToken[]): void;
  piece(choice: number, piece: TextPiece): void;
  /** After every choice has ended. */
  done(timings: RequestTimings): void;
  /** Instead of done. */
  failed(error: ServeError): void;
}

/** What the fronts are told. Started comes first: when the request is taken, or with the prompt's log-probabilities. */
export interface RequestEvents extends Omit<RequestSink, "begun" | "promptScored"> {
  started(promptTokens?: SampledToken[]): void;
}

export interface RequestTimings {
  queueMs: number;
  encodeMs: number;
  firstTokenMs: number;
  totalMs: number;
  completionTokens: number;
  /** Of the prompt, found in the prefix cache. */
  cachedTokens: number;
}

export class Sequence implements ScheduledSequence {
  computed = 0;
  blocks: number[] = [];
  toldBlocks = 0;
  copyFrom: number | undefined;
  opened = false;
  /** Tokens that the ranks know, from position 0. */
  knownTokens = 0;
  lastTokenMs: number | undefined;
  readonly tokens: number[];

  constructor(
    readonly id: bigint,
    readonly request: ActiveRequest,
    readonly choice: number,
    readonly arrival: number,
    readonly parts: {
      text: ChoiceText;
      keys: BlockKeys;
      matcher: Matcher | undefined;
      /** Absent: no token of it is guessed. */
      drafting?: Drafting | undefined;
    },
  ) {
    this.tokens = [...request.prepared.promptIds];
  }
  get text(): ChoiceText {
    return this.parts.text;
  }
  get priority(): number {
    return this.request.prepared.priority;
  }
  get tokenCount(): number {
    return this.tokens.length;
  }
  get ready(): boolean {
    const { matcher } = this.parts;
    return matcher === undefined || matcher.mask !== undefined;
  }
  get wantedBefore(): number {
    return this.request.scoring === undefined ? 0 : this.request.prepared.promptIds.length - 1;
  }
  get looksUp(): boolean {
    return this.request.scoring === undefined;
  }
  /** Of a constrained one what its grammar takes, as far as there are masks for the rows behind. */
  drafts(most: number): readonly number[] {
    const { drafting, matcher } = this.parts;
    if (matcher === undefined) return drafting?.proposal.slice(0, most) ?? [];
    const { promptIds, minTokens } = this.request.prepared;
    const made = this.tokens.length - promptIds.length;
    // Where nothing but the end may come before `min_tokens` that is found between two steps.
    const end = matcher.ahead.findIndex(({ mayEnd }, i) => mayEnd && made + i + 1 < minTokens);
    const usable = end < 0 ? matcher.ahead : matcher.ahead.slice(0, end);
    return usable.slice(0, most).map(({ tokenId }) => tokenId);
  }
  keyOf(index: number): string {
    return this.parts.keys.keyOf(index, this.tokens);
  }
  get promptComputed(): boolean {
    return this.computed >= this.request.prepared.promptIds.length;
  }
}

export interface SubmitOptions {
  /** Of its tenant. */
  weight: number;
  grammar: Grammar | undefined;
}

export class ActiveRequest {
  readonly acceptedMs: number;
  encodeStartMs: number | undefined;
  encodeEndMs: number | undefined;
  scheduledMs: number | undefined;
  firstTokenMs: number | undefined;
  completionTokens = 0;
  sequences: Sequence[] = [];
  /** Choices that begin when the prompt is computed. */
  unforked = 0;
  cachedTokens: number | undefined;
  /** Of the prompt's tokens so far, by position; undefined when they are not asked for, or told. */
  scoring: SampledToken[] | undefined;
  ended = false;
  /** What observations of it are shown with. */
  exemplar: Exemplar | undefined;
  /** What it holds of pictures on the workers; undefined until there is room for all of it, and at the end. */
  images: RequestImages | undefined;

  constructor(
    readonly prepared: PreparedRequest,
    readonly sink: RequestSink,
    readonly options: SubmitOptions,
    nowMs: number,
  ) {
    this.acceptedMs = nowMs;
    if (prepared.promptLogprobs !== undefined) this.scoring = [];
  }
  /** Sequences that run or will. */
  get reserved(): number {
    return this.sequences.length + this.unforked;
  }
  /** What tenants' shares are counted by. */
  get claim(): Claim & { request: ActiveRequest } {
    const { tenant, priority, promptIds } = this.prepared;
    const { weight } = this.options;
    return { request: this, tenant, weight, priority, cost: promptIds.length };
  }
  timings(nowMs: number): RequestTimings {
    const since = (ms: number | undefined) => (ms ?? nowMs) - this.acceptedMs;
    const { encodeStartMs, encodeEndMs = nowMs } = this;
    return {
      queueMs: since(this.scheduledMs),
      encodeMs: encodeStartMs === undefined ? 0 : encodeEndMs - encodeStartMs,
      firstTokenMs: since(this.firstTokenMs),
      totalMs: since(nowMs),
      completionTokens: this.completionTokens,
      cachedTokens: this.cachedTokens ?? 0,
    };
  }
}

export type { FinishCause };
