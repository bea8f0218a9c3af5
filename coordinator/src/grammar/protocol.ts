/** What the engine and its threads say to each other. */
import type { ConstraintSpec } from "../request/constraint.js";
import type { GrammarLimits } from "./limits.js";
import type { CompilerInput } from "./source.js";

/** Handed to each thread; the shared buffers are never written after the start. */
export interface ThreadData {
  vocabulary: SharedVocabulary;
  stopTokenIds: readonly number[];
  limits: GrammarLimits;
  /** [0] rises with each piece of work taken up, [1] is the grammar it belongs to. */
  progress: Int32Array;
}

/** Bytes of token `id`: bytes[ends[id - 1] … ends[id]). Empty ones are never allowed. */
export interface SharedVocabulary {
  bytes: Uint8Array;
  ends: Uint32Array;
}

export type WorkItem =
  /** `tokens`: accepted before, in another thread. */
  | { kind: "open"; matcherId: number; grammarId: number; tokens: readonly number[] }
  /** `ahead`: what may come next; taken back when the masks behind are made. */
  | {
      kind: "accept";
      matcherId: number;
      tokenIds: number[];
      ahead: readonly number[];
    }
  | { kind: "close"; matcherId: number };

export type ToThread =
  /** From a source, with a first mask; kept under the id. */
  | { kind: "compile"; grammarId: number; spec: ConstraintSpec }
  /** What another thread has compiled before. */
  | { kind: "load"; grammarId: number; input: CompilerInput }
  | { kind: "drop"; grammarId: number }
  | { kind: "work"; items: WorkItem[] };

export interface MatcherState {
  matcherId: number;
  /** Tokens accepted. */
  position: number;
  state: "mask" | "ended" | "stuck" | "rejected";
  /** Of state `mask`: index among the message's masks, where each stands once. */
  mask?: number;
  /** The mask has a stop id. */
  mayEnd: boolean;
  /** Masks behind the first so many tokens of `ahead`; as `mask`. */
  ahead?: AheadState[];
  /** Without `ahead`. */
  tookMs: number;
}

export interface AheadState {
  tokenId: number;
  mask: number;
  mayEnd: boolean;
}

export type FromThread =
  | { kind: "ready" }
  | { kind: "compiled"; grammarId: number; input: CompilerInput; tookMs: number }
  | { kind: "refused"; grammarId: number; message: string; path: string | undefined }
  | { kind: "loaded"; grammarId: number }
  | { kind: "dropped"; grammarId: number }
  /** `masks`: one after the other. */
  | { kind: "worked"; states: MatcherState[]; masks: ArrayBuffer }
  /** XGrammar has aborted: the thread is of no more use. */
  | { kind: "broken"; grammarId: number; message: string };
