/** What the request part hands to the engine loop, and gets back from it. Pure data. */
import type { ConstraintSpec } from "./constraint.js";

/** A validated `GenerateRequest` with its prompt rendered, tokenised and its images cut into tiles. */
export interface PreparedRequest {
  requestId: string;
  tenant: string;
  promptIds: number[];
  /** Places whose embeddings come from tiles, in rising order of position. */
  imageRows: ImageRowRun[];
  /** Distinct images' streams for cross-attention, in order of first use; empty without it. */
  streams: PreparedStream[];
  /** Who sees what of them, rising positions; before the first nothing is seen, after the last nothing changes. */
  sights: Sight[];
  /** Distinct tiles in order of first use; equal pixels within the request appear once. */
  tiles: PreparedTile[];
  /** Prompt tokens that are image rows. */
  imageTokenCount: number;
  /** Tiles before equal ones were merged. */
  tileCount: number;
  choiceCount: number;
  maxTokens: number;
  minTokens: number;
  priority: number;
  sampling: SamplingParameters;
  stopTokenIds: number[];
  stopTexts: string[];
  includeStopText: boolean;
  skipSpecialTokens: boolean;
  returnTokenIds: boolean;
  /** Undefined: no logprobs. */
  topLogprobs: number | undefined;
  /** Of the prompt's tokens from the second on, and so many alternatives; undefined: none. */
  promptLogprobs: number | undefined;
  /** What every choice must match, calls of tools included; undefined: anything. */
  constraint: ConstraintSpec | undefined;
  /** The request's field that asks for it, for errors; "" without one. */
  constraintField: string;
  /** Undefined: an answer is text alone. */
  tools: ToolUse | undefined;
  /** Blocks of the prefix cache are shared within one salt only; "" when none is given. */
  cacheSalt: string;
  /** Every choice's text begins with the prompt's. */
  echo: boolean;
}

/** Calls of tools are looked for in an answer. */
export interface ToolUse {
  /** False: the first call ends the answer. */
  parallel: boolean;
}

/** `count` prompt positions from `position` on take rows firstRow… of a tile's embeddings. */
export interface ImageRowRun {
  position: number;
  tile: number;
  firstRow: number;
  count: number;
}

/** What cross-attention reads of an image: tiles in order, each behind the embeddings of its tag's ids. */
export interface PreparedStream {
  /** Equal for equal contents. */
  key: string;
  /** `tile` counts the request's distinct tiles. */
  tiles: { tagIds: number[]; tile: number }[];
  /** Tag ids and the rows of all tiles. */
  rowCount: number;
}

/** Tokens from `position` on, up to the next, see these rows [first, end) of streams, image by image. */
export interface Sight {
  position: number;
  ranges: { stream: number; first: number; end: number }[];
}

export interface PreparedTile {
  /** Hex SHA-256 of the pixels. */
  sha256: string;
  /** u8 [size, size, 3]. */
  pixels: Uint8Array;
}

export interface SamplingParameters {
  temperature: number;
  topP: number;
  /** 0: off. */
  topK: number;
  minP: number;
  seed: bigint;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  logitBias: { tokenId: number; bias: number }[];
  /** Empty: all. */
  allowedTokenIds: number[];
  badWords: number[][];
}

/** A token the engine chose, with what was asked about it. */
export interface SampledToken {
  tokenId: number;
  /** Of the raw logits; undefined when no logprobs were asked for. */
  logprob: number | undefined;
  top: { tokenId: number; logprob: number }[];
}

/** Why a choice ended. */
export type FinishCause =
  | { reason: "stop"; stopText?: string; stopTokenId?: number }
  /** The answer ended by itself and has calls. */
  | { reason: "tool_calls"; stopText?: string; stopTokenId?: number }
  | { reason: "length" }
  | { reason: "aborted" }
  | { reason: "error"; code: string; message: string };

/** The beginning of a call, which has id and name, or more of its arguments. */
export interface ToolCallPiece {
  /** Of the call in the answer, from 0. */
  index: number;
  /** "" but in the first piece. */
  id: string;
  name: string;
  /** Of their JSON text. */
  arguments: string;
}

/** What a token adds to a choice's text. */
export interface TextPiece {
  /** Text that may be shown now; never half a character, never the beginning of a stop text. */
  text: string;
  /** What it adds to calls of tools; absent: nothing. */
  toolCalls?: ToolCallPiece[];
  /** Tokens whose text is out or held back, in order; they are reported with this piece. */
  tokens: SampledToken[];
  /** Set when this token ended the choice. */
  finish: FinishCause | undefined;
}

/** Turns the tokens of one choice into text pieces; made by `createChoiceText`. */
export interface ChoiceText {
  /** Takes the next token. */
  push(token: SampledToken): TextPiece;
  /** Ends the choice from outside (length, abort, error): what was held back comes out. */
  end(cause: FinishCause): TextPiece;
  readonly tokenCount: number;
}
