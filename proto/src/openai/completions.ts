/** OpenAI's legacy completion body → requests, one a prompt; answers and events → its legacy shape. */
import { ServeError } from "../errors.js";
import {
  FinishReason,
  type Choice,
  type Delta,
  type Event,
  type GenerateOnceResponse,
  type Started,
  type TokenLogprob,
} from "../gen/tessera/v1/inference_pb.js";
import {
  sumUsage,
  UsageOfChunks,
  type Chunk,
  type Chunks,
  type StreamFormat,
  type StreamName,
} from "./chunks.js";
import { asObject, Body, quote, type Json } from "./fields.js";
import { toGenerateRequest, type GenerateInput, type RequestOptions } from "./request.js";
import { finishReasonOf, toPromptLogprobs, toUsage } from "./response.js";

/** Of one body. */
export const MAX_PROMPTS = 64;
/** As OpenAI and vLLM. */
const DEFAULT_MAX_TOKENS = 16;

/** A text that is to be made token ids, or ready ones. */
export type Prompt = { text: string } | { tokenIds: number[] };

export interface Completion {
  prompts: Prompt[];
  /** Without a prompt. */
  request: GenerateInput;
}

/** Of chat bodies only. */
const NOT_HERE = [
  "messages",
  "max_completion_tokens",
  "top_logprobs",
  "tools",
  "tool_choice",
  "parallel_tool_calls",
  "continue_final_message",
  "add_generation_prompt",
  "modalities",
];

function isIds(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.every((id) => Number.isInteger(id) && Number(id) >= 0 && Number(id) < 2 ** 32)
  );
}

function prompt(value: unknown, field: string): Prompt {
  if (typeof value !== "string" && !isIds(value))
    throw ServeError.field(field, `is ${quote(value)}, must be a text or a list of token ids`);
  if (value.length === 0) throw ServeError.field(field, "is empty");
  return typeof value === "string" ? { text: value } : { tokenIds: value };
}

/** A text, token ids, or a list of either. */
function prompts(value: unknown): Prompt[] {
  const single = typeof value === "string" || !Array.isArray(value);
  if (single || (value.length > 0 && value.every((one) => typeof one === "number")))
    return [prompt(value, "prompt")];
  if (value.length === 0) throw ServeError.field("prompt", "is empty");
  if (value.length > MAX_PROMPTS)
    throw ServeError.field("prompt", `has ${value.length} prompts, limit ${MAX_PROMPTS}`);
  return value.map((one: unknown, i) => prompt(one, `prompt[${i}]`));
}

/** @throws ServeError INVALID_ARGUMENT naming the field; NOT_BUILT for one that is not served. */
export async function toCompletion(
  value: unknown,
  options: Pick<RequestOptions, "stream"> = {},
): Promise<Completion> {
  const json = asObject(value, "body");
  const chat = NOT_HERE.find((key) => json[key] !== undefined);
  if (chat !== undefined)
    throw ServeError.field(chat, "is of /v1/chat/completions and not known here", "NOT_BUILT");
  const { prompt: asked, logprobs: _asked, ...rest } = json;
  const logprobs = new Body(json).whole("logprobs");
  const list = prompts(asked);
  const shared: Json = { max_tokens: DEFAULT_MAX_TOKENS, ...rest, messages: [] };
  if (json["max_tokens"] === null) shared["max_tokens"] = DEFAULT_MAX_TOKENS;
  const request = await toGenerateRequest(shared, options);
  if (logprobs === undefined) return { prompts: list, request };
  // The prompt's tokens are shown beside the answer's.
  const echoed = request.echo === true ? { promptLogprobs: logprobs } : {};
  return { prompts: list, request: { ...request, topLogprobs: logprobs, ...echoed } };
}

/** Bytes as a name: their text, or escaped where they are part of a character, so that names do not meet. */
function nameOf(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString("utf8");
  if (Buffer.from(text, "utf8").equals(bytes)) return text;
  return `bytes:${[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}

export interface LegacyLogprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  /** Characters (code points) of the choice's text before the token. */
  text_offset: number[];
}

type Shown = Pick<TokenLogprob, "token" | "top"> & { logprob: number | null };

/** One choice's logprobs, token by token. */
class LegacyWriter {
  private characters = 0;

  write(list: Shown[]): LegacyLogprobs {
    const result: LegacyLogprobs = {
      tokens: [],
      token_logprobs: [],
      top_logprobs: [],
      text_offset: [],
    };
    for (const { token, logprob, top } of list) {
      const name = nameOf(token);
      result.tokens.push(name);
      result.token_logprobs.push(logprob);
      const best = top.map((one): [string, number] => [nameOf(one.token), one.logprob]);
      result.top_logprobs.push(
        logprob === null ? null : Object.fromEntries([...best, [name, logprob]]),
      );
      // A token that goes on with a character begins where that begins.
      const inside = token[0] !== undefined && (token[0] & 0xc0) === 0x80 && this.characters > 0;
      result.text_offset.push(this.characters - (inside ? 1 : 0));
      this.characters += token.reduce((sum, byte) => sum + ((byte & 0xc0) === 0x80 ? 0 : 1), 0);
    }
    return result;
  }
}

export interface TextFormat extends StreamFormat {
  echo: boolean;
  /** Of the prompt's tokens, for an echo with logprobs. */
  tokenBytes(id: number): Uint8Array;
}

/** The prompt's tokens, where the echo shows them. */
function promptTokens({ promptTokenIds, promptLogprobs }: Started, format: TextFormat): Shown[] {
  if (!format.echo || !format.logprobs) return [];
  return promptTokenIds.map((id, i) => {
    const known = i === 0 ? undefined : promptLogprobs[i - 1];
    return known ?? { token: format.tokenBytes(id), logprob: null, top: [] };
  });
}

/** text_completion, in pieces. */
export class TextChunks implements Chunks {
  private readonly writers = new Map<number, LegacyWriter>();
  private prompt: Shown[] = [];
  readonly remembers: boolean;

  /** `firstIndex`: of the prompt's choices among all of the body; `usage`: shared by its prompts. */
  constructor(
    private readonly name: StreamName,
    private readonly format: TextFormat,
    private readonly usage = new UsageOfChunks(format.usage),
    private readonly firstIndex = 0,
  ) {
    this.remembers = format.usage === "always" || format.logprobs;
  }

  take(event: Event): Chunk | undefined {
    this.usage.count(event);
    const { kind } = event;
    if (kind.case === "started") this.prompt = promptTokens(kind.value, this.format);
    const body = this.body(event) ?? this.usage.last(event);
    if (body === undefined) return undefined;
    const { id, model } = this.name;
    const created = this.format.createdSeconds;
    return { id, object: "text_completion", created, model, ...body };
  }

  private body({ kind }: Event): { choices: object[]; usage?: object | null } | undefined {
    if (kind.case === "delta") return this.chunk(kind.value.choice, this.delta(kind.value));
    if (kind.case !== "finished") return undefined;
    const reason = finishReasonOf(kind.value.reason) ?? null;
    return this.chunk(kind.value.choice, { text: "", logprobs: null, finish_reason: reason });
  }

  private chunk(choice: number, of: object) {
    return { choices: [{ index: this.firstIndex + choice, ...of }], ...this.usage.running };
  }

  private delta({ choice, text, logprobs, tokenIds }: Delta) {
    const { format } = this;
    const first = !this.writers.has(choice);
    const writer = this.writers.get(choice) ?? new LegacyWriter();
    this.writers.set(choice, writer);
    const tokens = first ? [...this.prompt, ...logprobs] : logprobs;
    return {
      text,
      logprobs: format.logprobs ? writer.write(tokens) : null,
      finish_reason: null,
      ...(format.tokenIds ? { token_ids: tokenIds } : {}),
    };
  }
}

function choiceOf(from: Choice, started: Started | undefined, format: TextFormat) {
  const shown = started === undefined ? [] : promptTokens(started, format);
  const logprobs = new LegacyWriter().write([...shown, ...from.logprobs]);
  return {
    text: from.text,
    logprobs: format.logprobs ? logprobs : null,
    finish_reason: finishReasonOf(from.finished?.reason ?? FinishReason.UNSPECIFIED) ?? null,
    ...(format.tokenIds ? { token_ids: from.tokenIds } : {}),
    ...(format.tokenIds ? { prompt_token_ids: started?.promptTokenIds ?? [] } : {}),
    ...(format.promptLogprobs
      ? { prompt_logprobs: toPromptLogprobs(started?.promptLogprobs ?? []) }
      : {}),
  };
}

/** Of all prompts of a body, in their order. */
export function toTextCompletion(
  id: string,
  answers: GenerateOnceResponse[],
  format: TextFormat,
): object {
  const choices = answers.flatMap((answer, p) =>
    answer.choices.map((choice) => ({
      index: p * format.n + choice.index,
      ...choiceOf(choice, answer.started, format),
    })),
  );
  return {
    id,
    object: "text_completion",
    created: format.createdSeconds,
    model: answers[0]?.started?.model ?? "",
    choices,
    usage: sumUsage(answers.map(({ usage }) => toUsage(usage))),
  };
}
