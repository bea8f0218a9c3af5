/** What a load is sent to. */
import type { StreamTimer, Usage } from "./stream-timer.js";
import type { Prompt } from "./workload.js";

export type ServerKind = "tessera" | "vllm" | "openai";

export interface ServerInfo {
  kind: ServerKind;
  /** Where requests go, without credentials. */
  address: string;
  model: string;
  version: string | undefined;
  /** Answers are of exactly the wanted length. */
  exactOutput: boolean;
}

export interface Target {
  /** Reaches the server and finds its model. @throws Error saying why not, before any load. */
  check(): Promise<ServerInfo>;
  /** Tokens of a prompt of `text` by the server's own count; undefined where it has none. */
  countTokens(text: string): Promise<number | undefined>;
  /** Resolves at the end of the stream. @throws TargetFailure */
  run(prompt: Prompt, timer: StreamTimer, signal: AbortSignal): Promise<Usage>;
  close(): Promise<void>;
}

export interface FailureFacts {
  /** As `http_429`, `grpc_OVERLOADED`, `ECONNRESET`, `truncated`. */
  code: string;
  /** The server had no room: HTTP 429, OVERLOADED. */
  refused?: boolean;
  /** When the server said to come again. */
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

const MAX_MESSAGE = 300;

export class TargetFailure extends Error {
  readonly code: string;
  readonly refused: boolean;
  readonly retryAfterMs: number | undefined;
  constructor(message: string, facts: FailureFacts) {
    super(message.slice(0, MAX_MESSAGE), { cause: facts.cause });
    this.name = "TargetFailure";
    this.code = facts.code;
    this.refused = facts.refused ?? false;
    this.retryAfterMs = facts.retryAfterMs;
  }

  /** What the system or a library says of itself. */
  static from(error: unknown): TargetFailure {
    if (error instanceof TargetFailure) return error;
    const { code } = error as { code?: unknown };
    const message = error instanceof Error ? error.message : String(error);
    return new TargetFailure(message, {
      code: typeof code === "string" ? code : "error",
      cause: error,
    });
  }
}
