/** Events of a stream → OpenAI's chunks. An event becomes one chunk or none, so that its index names the chunk. */
import type { Delta, Event, Finished, Started, ToolCall } from "../gen/tessera/v1/inference_pb.js";
import { finishReasonOf, toLogprobs, toPromptLogprobs, toUsage, type Wanted } from "./response.js";

/** What chunks say beside the events; the same for all of a stream. */
export interface StreamFormat extends Wanted {
  createdSeconds: number;
  /** Choices of the request. */
  n: number;
  /** OpenAI's include_usage: behind the last choice; vLLM's continuous_usage_stats: in every chunk. */
  usage: "none" | "end" | "always";
}

/** Of a body whose stream_options have been checked. */
export function usageWanted(body: object): StreamFormat["usage"] {
  const { stream_options: options } = body as { stream_options?: Record<string, unknown> | null };
  if (options?.["continuous_usage_stats"] === true) return "always";
  return options?.["include_usage"] === true ? "end" : "none";
}

export interface StreamName {
  id: string;
  model: string;
}

export interface Chunk {
  id: string;
  object: string;
  created: number;
  model: string;
  choices: object[];
  usage?: object | null;
}

/** Maps events in rising index. What it remembers of earlier ones is told by `remembers`. */
export interface Chunks {
  take(event: Event): Chunk | undefined;
  /** Chunks depend on the events before: whoever goes on in mid-stream takes those first. */
  readonly remembers: boolean;
}

type UsageJson = ReturnType<typeof toUsage>;

export function sumUsage(list: UsageJson[]): UsageJson {
  const sum = (of: (usage: UsageJson) => number) => list.reduce((all, one) => all + of(one), 0);
  return {
    prompt_tokens: sum((usage) => usage.prompt_tokens),
    completion_tokens: sum((usage) => usage.completion_tokens),
    total_tokens: sum((usage) => usage.total_tokens),
    prompt_tokens_details: {
      cached_tokens: sum((usage) => usage.prompt_tokens_details.cached_tokens),
    },
  };
}

/** Counts the tokens of all requests of an answer, and puts them in as its format says. */
export class UsageOfChunks {
  private promptTokens = 0;
  private completionTokens = 0;
  private readonly ended: UsageJson[] = [];

  constructor(
    private readonly usage: StreamFormat["usage"],
    private readonly requestCount = 1,
  ) {}

  count({ kind }: Event): void {
    if (kind.case === "started") this.promptTokens += kind.value.promptTokens;
    if (kind.case === "delta") this.completionTokens += kind.value.tokenIds.length;
    if (kind.case === "done") this.ended.push(toUsage(kind.value.usage));
  }

  /** Of a chunk with choices. */
  get running(): { usage?: object | null } {
    if (this.usage === "none") return {};
    if (this.usage === "end") return { usage: null };
    const [prompt, completion] = [this.promptTokens, this.completionTokens];
    return {
      usage: {
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: prompt + completion,
      },
    };
  }

  /** Of the last chunk, which has no choices; undefined where none was asked for. */
  last({ kind }: Event): { choices: object[]; usage: object } | undefined {
    const whole = kind.case === "done" && this.ended.length === this.requestCount;
    if (!whole || this.usage === "none") return undefined;
    return { choices: [], usage: sumUsage(this.ended) };
  }
}

function callDelta({ index, id, name, arguments: text }: ToolCall) {
  const first = id !== "" || name !== "";
  const head = first ? { id, type: "function" } : {};
  return { index, ...head, function: first ? { name, arguments: text } : { arguments: text } };
}

/** chat.completion.chunk */
export class ChatChunks implements Chunks {
  private readonly usage: UsageOfChunks;
  readonly remembers: boolean;

  constructor(
    private readonly name: StreamName,
    private readonly format: StreamFormat,
  ) {
    this.usage = new UsageOfChunks(format.usage);
    this.remembers = format.usage === "always";
  }

  take(event: Event): Chunk | undefined {
    this.usage.count(event);
    const body = this.body(event) ?? this.usage.last(event);
    if (body === undefined) return undefined;
    const { id, model } = this.name;
    const created = this.format.createdSeconds;
    return { id, object: "chat.completion.chunk", created, model, ...body };
  }

  private body({ kind }: Event): { choices: object[]; usage?: object | null } | undefined {
    if (kind.case === "started") return this.started(kind.value);
    if (kind.case === "delta") return this.delta(kind.value);
    return kind.case === "finished" ? this.finished(kind.value) : undefined;
  }

  /** One chunk for all choices. */
  private started({ promptTokenIds, promptLogprobs }: Started) {
    const { n, tokenIds, promptLogprobs: shown } = this.format;
    const delta = { role: "assistant", content: "" };
    const choices = Array.from({ length: n }, (_, index) => ({
      index,
      delta,
      logprobs: null,
      finish_reason: null,
    }));
    return {
      choices,
      ...(tokenIds ? { prompt_token_ids: promptTokenIds } : {}),
      ...(shown ? { prompt_logprobs: toPromptLogprobs(promptLogprobs) } : {}),
      ...this.usage.running,
    };
  }

  private delta({ choice: index, text, toolCalls, tokenIds, logprobs }: Delta) {
    const { format } = this;
    const calls = toolCalls.length === 0 ? {} : { tool_calls: toolCalls.map(callDelta) };
    const content = text === "" && toolCalls.length > 0 ? {} : { content: text };
    const choice = {
      index,
      delta: { ...content, ...calls },
      logprobs: format.logprobs ? toLogprobs(logprobs) : null,
      finish_reason: null,
      ...(format.tokenIds ? { token_ids: tokenIds } : {}),
    };
    return { choices: [choice], ...this.usage.running };
  }

  private finished(from: Finished) {
    const choice = {
      index: from.choice,
      delta: {},
      logprobs: null,
      finish_reason: finishReasonOf(from.reason) ?? null,
    };
    return { choices: [choice], ...this.usage.running };
  }
}
