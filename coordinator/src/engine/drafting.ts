/** The guesses of one sequence at its next tokens. They decide how much a step computes, never what is chosen. */
import type { CoordinatorMetrics } from "../metrics.js";
import type { PreparedRequest } from "../request/types.js";
import { DraftPace } from "./draft-pace.js";
import { continuation, PromptLookup } from "./prompt-lookup.js";

/** Drafts of one sequence in a step, at most. */
export const MAX_DRAFTS = 16;

type Counters = Pick<CoordinatorMetrics, "drafts" | "draftTokens" | "acceptedTokens">;
type Facts = Pick<PreparedRequest, "promptIds" | "imageRows" | "maxTokens" | "stopTokenIds">;

export class Drafting {
  private readonly lookup = new PromptLookup();
  private readonly pace: DraftPace;
  /** Of the tokens that `propose` was last given. */
  proposal: readonly number[] = [];

  constructor(
    most: number,
    private readonly facts: Facts,
    private readonly counters: Counters,
  ) {
    this.pace = new DraftPace(most);
  }

  /** After each step that made tokens; `tokens`: all of the sequence. */
  propose(tokens: readonly number[]): void {
    const { promptIds, maxTokens } = this.facts;
    // The row behind the last draft makes a token too.
    const room = maxTokens - (tokens.length - promptIds.length) - 1;
    const most = Math.min(this.pace.next(), room);
    const from = most > 0 ? this.lookup.find(tokens) : undefined;
    this.proposal =
      from === undefined
        ? []
        : continuation(tokens, from, { most, may: (id, position) => this.may(id, position) });
  }

  /** A stop id ends the answer, and an image row is no token. */
  private may(tokenId: number, position: number): boolean {
    const { stopTokenIds, imageRows } = this.facts;
    if (stopTokenIds.includes(tokenId)) return false;
    return !imageRows.some(
      (run) => run.position <= position && position < run.position + run.count,
    );
  }

  /** A step has looked at so many; of 0 there is nothing to say. */
  verified(drafts: number, accepted: number): void {
    if (drafts === 0) return;
    this.counters.drafts.inc();
    this.counters.draftTokens.inc(drafts);
    this.counters.acceptedTokens.inc(accepted);
    this.pace.tried(drafts, accepted);
  }
}
