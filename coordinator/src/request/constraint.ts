/** What an answer must match, and the part that sees to it. Types alone: `grammar/` has the rest. */
import type { ServeError } from "@tessera/proto";

export type ConstraintSpec =
  | { kind: "json_schema"; schema: string }
  | { kind: "json_object" }
  | { kind: "regex"; pattern: string }
  | { kind: "choice"; texts: string[] }
  | { kind: "grammar"; ebnf: string }
  | { kind: "structural_tag"; tag: string };

/** Ids that may come next: bit id mod 8 of byte ⌊id / 8⌋. */
export type TokenMask = Uint8Array;

/** A token that may be the next one, or follow those before it in a list, and what may come behind it. */
export interface TokenAhead {
  tokenId: number;
  mask: TokenMask;
  mayEnd: boolean;
}

/** One choice's way through its grammar. */
export interface Matcher {
  /** For the next token; undefined while it is being made. */
  readonly mask: TokenMask | undefined;
  /** The mask has a stop id: what is there is whole. */
  readonly mayEnd: boolean;
  /** The grammar is at its end: nothing may come any more. Set after a stop id was accepted. */
  readonly ended: boolean;
  /** Set when no mask will come. */
  readonly failure: ServeError | undefined;
  /** Settles when `mask`, `ended` or `failure` is there; never rejects. */
  readonly ready: Promise<void>;
  /** Of the tokens last looked ahead at those that the grammar takes; none without a mask. */
  readonly ahead: readonly TokenAhead[];
  /** Takes a token that the mask allowed. */
  accept(tokenId: number): void;
  /** Right after tokens were accepted: beside the mask those behind these tokens are wanted, should they come. */
  lookAhead(tokenIds: readonly number[]): void;
  close(): void;
}

export interface Grammar {
  /** A matcher for one choice. */
  open(): Matcher;
  /** The request has ended. */
  close(): void;
}

export interface GrammarCompiler {
  /**
   * `field`: of the request, for errors.
   * @throws ServeError INVALID_ARGUMENT naming the field and what is wrong or not supported; OVERLOADED
   */
  compile(
    spec: ConstraintSpec,
    of: { tenant: string; field: string; signal: AbortSignal },
  ): Promise<Grammar>;
}
