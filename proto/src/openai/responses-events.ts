/** Events of a request → OpenAI's typed events of a response, and the whole response. */
import type { ServeError } from "../errors.js";
import {
  FinishReason,
  type Delta,
  type Event,
  type TokenLogprob,
  type ToolCall,
  type Usage,
} from "../gen/tessera/v1/inference_pb.js";
import { toLogprobs } from "./response.js";
import type { ResponseEcho } from "./responses-request.js";

export interface TypedEvent {
  type: string;
  sequence_number: number;
  [key: string]: unknown;
}

interface TextPart {
  type: "output_text";
  text: string;
  annotations: never[];
  logprobs: object[];
}

interface MessageItem {
  id: string;
  type: "message";
  status: "in_progress" | "completed" | "incomplete";
  role: "assistant";
  content: TextPart[];
}

interface CallItem {
  id: string;
  type: "function_call";
  status: MessageItem["status"];
  call_id: string;
  name: string;
  arguments: string;
}

type Item = MessageItem | CallItem;
type Status = "in_progress" | "completed" | "incomplete" | "failed";

function usageOf({ promptTokens, completionTokens, cachedTokens }: Usage) {
  return {
    input_tokens: promptTokens,
    input_tokens_details: { cached_tokens: cachedTokens },
    output_tokens: completionTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: promptTokens + completionTokens,
  };
}

function logprobsOf(list: TokenLogprob[]): object[] {
  return toLogprobs(list).content;
}

export interface ResponseName {
  /** Without `resp_`. */
  id: string;
  model: string;
  createdSeconds: number;
}

/** Takes the events of one choice in rising index. */
export class ResponseWriter {
  private sequence = 0;
  private readonly output: Item[] = [];
  private open: Item | undefined;
  /** Logprobs of tokens that have no text yet. */
  private readonly pending: object[] = [];
  private status: Status = "in_progress";
  private cut = false;
  private usage: object | null = null;
  private error: { code: string; message: string } | null = null;

  constructor(
    private readonly name: ResponseName,
    private readonly echo: ResponseEcho,
  ) {}

  /** As it stands. */
  get response(): object {
    const { id, model, createdSeconds } = this.name;
    return {
      id: `resp_${id}`,
      object: "response",
      created_at: createdSeconds,
      status: this.status,
      background: false,
      error: this.error,
      incomplete_details: this.status === "incomplete" ? { reason: "max_output_tokens" } : null,
      model,
      output: this.output.map((item) => structuredClone(item)),
      previous_response_id: null,
      reasoning: { effort: null, summary: null },
      service_tier: "default",
      store: false,
      truncation: "disabled",
      usage: this.usage,
      ...this.echo,
    };
  }

  take({ kind }: Event): TypedEvent[] {
    switch (kind.case) {
      case "started":
        return [this.whole("response.created"), this.whole("response.in_progress")];
      case "delta":
        return this.delta(kind.value);
      case "finished":
        this.cut = kind.value.reason === FinishReason.LENGTH;
        // An answer without a token is an empty text.
        return [...(this.output.length === 0 ? this.openText() : []), ...this.close()];
      case "done":
        return this.done(kind.value.usage);
      default:
        return [];
    }
  }

  /** The last event of an answer that is not whole. */
  fail({ code, message }: Pick<ServeError, "message"> & { code: string }): TypedEvent {
    this.status = "failed";
    this.error = { code, message };
    return this.whole("response.failed");
  }

  private event(type: string, of: object): TypedEvent {
    return { type, sequence_number: this.sequence++, ...of };
  }
  private whole(type: string): TypedEvent {
    return this.event(type, { response: this.response });
  }

  private done(usage: Usage | undefined): TypedEvent[] {
    this.status = this.cut ? "incomplete" : "completed";
    if (usage !== undefined) this.usage = usageOf(usage);
    return [this.whole(this.cut ? "response.incomplete" : "response.completed")];
  }

  private get place(): { output_index: number; item_id: string } {
    return { output_index: this.output.length - 1, item_id: this.open?.id ?? "" };
  }

  private itemEvent(type: string, item: Item): TypedEvent {
    const output_index = this.output.length - 1;
    return this.event(type, { output_index, item: structuredClone(item) });
  }

  private begin(item: Item): TypedEvent {
    this.open = item;
    this.output.push(item);
    return this.itemEvent("response.output_item.added", item);
  }

  private openText(): TypedEvent[] {
    const id = `msg_${this.name.id}_${this.output.length}`;
    const item: MessageItem = {
      id,
      type: "message",
      status: "in_progress",
      role: "assistant",
      content: [],
    };
    const added = this.begin(item);
    const part: TextPart = { type: "output_text", text: "", annotations: [], logprobs: [] };
    item.content.push(part);
    const of = { ...this.place, content_index: 0, part: structuredClone(part) };
    return [added, this.event("response.content_part.added", of)];
  }

  private delta({ text, toolCalls, logprobs }: Delta): TypedEvent[] {
    const own = logprobsOf(logprobs);
    if (text === "" && toolCalls.length === 0) {
      // A token that is no whole character yet: shown with the text that it becomes part of.
      if (this.open?.type !== "function_call") this.pending.push(...own);
      return [];
    }
    const events = text === "" ? [] : this.text(text, own);
    for (const call of toolCalls) events.push(...this.call(call));
    return events;
  }

  private text(text: string, own: object[]): TypedEvent[] {
    const events = this.open?.type === "message" ? [] : [...this.close(), ...this.openText()];
    const part = this.open?.type === "message" ? this.open.content[0] : undefined;
    if (part === undefined) return events;
    const logprobs = [...this.pending.splice(0), ...own];
    part.text += text;
    part.logprobs.push(...logprobs);
    const of = { ...this.place, content_index: 0, delta: text, logprobs };
    return [...events, this.event("response.output_text.delta", of)];
  }

  private call({ id, name, arguments: text }: ToolCall): TypedEvent[] {
    const events: TypedEvent[] = [];
    if (id !== "" || name !== "") {
      events.push(...this.close());
      this.pending.length = 0;
      const own = `fc_${this.name.id}_${this.output.length}`;
      const status = "in_progress";
      events.push(
        this.begin({ id: own, type: "function_call", status, call_id: id, name, arguments: "" }),
      );
    }
    if (this.open?.type !== "function_call" || text === "") return events;
    this.open.arguments += text;
    const of = { ...this.place, delta: text };
    return [...events, this.event("response.function_call_arguments.delta", of)];
  }

  /** Nothing more comes of the open item. */
  private close(): TypedEvent[] {
    const item = this.open;
    if (item === undefined) return [];
    const events = item.type === "message" ? this.textEnd(item) : [this.callEnd(item)];
    item.status = this.cut ? "incomplete" : "completed";
    events.push(this.itemEvent("response.output_item.done", item));
    this.open = undefined;
    return events;
  }

  private textEnd({ content: [part] }: MessageItem): TypedEvent[] {
    const place = { ...this.place, content_index: 0 };
    part?.logprobs.push(...this.pending.splice(0));
    const { text, logprobs } = part ?? { text: "", logprobs: [] };
    return [
      this.event("response.output_text.done", { ...place, text, logprobs: [...logprobs] }),
      this.event("response.content_part.done", { ...place, part: structuredClone(part) }),
    ];
  }

  private callEnd({ name, arguments: text }: CallItem): TypedEvent {
    const of = { ...this.place, name, arguments: text };
    return this.event("response.function_call_arguments.done", of);
  }
}
