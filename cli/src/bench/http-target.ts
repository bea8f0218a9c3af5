/** A load's requests to an OpenAI-compatible server. */
import type { TlsOptions } from "@tessera/client";
import { createParser } from "eventsource-parser";
import { Pool, type Dispatcher } from "undici";
import { failureOf, readPiece, readUsage } from "./http-wire.js";
import { MAX_IN_FLIGHT } from "./limits.js";
import type { StreamTimer, Usage } from "./stream-timer.js";
import { TargetFailure, type ServerInfo, type ServerKind, type Target } from "./target.js";
import type { Prompt } from "./workload.js";

const CONNECT_DEADLINE_MS = 10_000;
const CHECK_DEADLINE_MS = 30_000;
const MAX_EVENT_CHARACTERS = 8 << 20;
const MAX_ERROR_BYTES = 64 << 10;
const MAX_ANSWER_BYTES = 8 << 20;

export interface HttpOptions {
  /** As http://127.0.0.1:8000/v1. */
  baseUrl: URL;
  apiKey: string | undefined;
  /** Undefined: the first that the server names. */
  model: string | undefined;
  endpoint: "chat" | "completions";
  /** auto: by what it says of its models. */
  kind: ServerKind | "auto";
  /** Fields laid over every body; null takes a field away. */
  extraBody: Record<string, unknown>;
  temperature: number;
  tls: TlsOptions | undefined;
  /** Of a request, its whole answer included. */
  requestDeadlineMs: number;
}

const PATHS = { chat: "/chat/completions", completions: "/completions" };

type Response = Dispatcher.ResponseData;

/** At most `limit` bytes; what is more is not read. */
async function readText(body: Response["body"], limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > limit) break;
  }
  return Buffer.concat(chunks).subarray(0, limit).toString("utf8");
}

function headerOf(response: Response, name: string): string | undefined {
  const value = response.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

async function refusal(response: Response): Promise<TargetFailure> {
  const body = await readText(response.body, MAX_ERROR_BYTES);
  const retryAfter = headerOf(response, "retry-after");
  return failureOf(response.statusCode, { body, retryAfter, nowMs: Date.now() });
}

/** What a parsed stream has said so far. */
class Reading {
  usage: Usage | undefined;
  ended = false;
  private failure: TargetFailure | undefined;
  private readonly decoder = new TextDecoder();
  private at = 0;
  private readonly parser = createParser({
    maxBufferSize: MAX_EVENT_CHARACTERS,
    onEvent: ({ data }) => this.take(data),
    onError: (error) => {
      if (error.type !== "max-buffer-size-exceeded") return;
      const message = `an event has more than ${MAX_EVENT_CHARACTERS} characters`;
      this.failure ??= new TargetFailure(message, { code: "bad_event", cause: error });
    },
  });
  constructor(private readonly timer: StreamTimer) {}

  /** @throws TargetFailure */
  feed(bytes: Uint8Array): void {
    this.at = this.timer.now();
    this.parser.feed(this.decoder.decode(bytes, { stream: true }));
    if (this.failure !== undefined) throw this.failure;
  }
  private take(data: string): void {
    if (this.failure !== undefined) return;
    if (data === "[DONE]") {
      this.ended = true;
      return;
    }
    try {
      const piece = readPiece(data);
      this.timer.addChunk(this.at, piece.tokenCount);
      this.usage = piece.usage ?? this.usage;
      this.ended ||= piece.finished;
    } catch (error) {
      this.failure = TargetFailure.from(error);
    }
  }
}

const NO_USAGE: Usage = {
  promptTokens: undefined,
  completionTokens: undefined,
  cachedTokens: undefined,
};

export class HttpTarget implements Target {
  private readonly pool: Pool;
  private readonly prefix: string;
  private kind: ServerKind = "openai";
  private model = "";

  constructor(private readonly options: HttpOptions) {
    const { baseUrl, tls, requestDeadlineMs } = options;
    const { serverName, ...files } = tls ?? {};
    const name = serverName === undefined ? {} : { servername: serverName };
    this.prefix = baseUrl.pathname.replace(/\/+$/, "");
    this.pool = new Pool(baseUrl.origin, {
      connections: MAX_IN_FLIGHT,
      headersTimeout: requestDeadlineMs,
      bodyTimeout: requestDeadlineMs,
      connect: { timeout: CONNECT_DEADLINE_MS, ...files, ...name },
    });
  }

  private async send(
    path: string,
    body: object | undefined,
    signal: AbortSignal,
  ): Promise<Response> {
    const { apiKey } = this.options;
    const headers = {
      accept: "text/event-stream, application/json",
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
    };
    const response = await this.pool.request({
      path,
      method: body === undefined ? "GET" : "POST",
      headers,
      signal,
      body: body === undefined ? null : JSON.stringify(body),
    });
    // A body that is left unread ends with an error that nobody else waits for; who reads it gets it too.
    response.body.on("error", () => undefined);
    return response;
  }

  /** @throws TargetFailure */
  private async json(path: string, body?: object): Promise<Record<string, unknown>> {
    const response = await this.send(path, body, AbortSignal.timeout(CHECK_DEADLINE_MS));
    if (response.statusCode !== 200) throw await refusal(response);
    const text = await readText(response.body, MAX_ANSWER_BYTES);
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null)
      throw new TargetFailure(`${path}: is no JSON object`, { code: "bad_answer" });
    return value as Record<string, unknown>;
  }

  /** A server without a list of models is taken at the caller's word for one. */
  async check(): Promise<ServerInfo> {
    const address = `${this.options.baseUrl.origin}${this.prefix}`;
    const models = await this.json(`${this.prefix}/models`).catch((error: unknown) => {
      const { code, message } = TargetFailure.from(error);
      if (code === "http_404" && this.options.model !== undefined)
        return { data: [{ id: this.options.model }] };
      const why = message === "" ? code : message;
      throw new Error(`${address}/models: no answer to start with: ${why}`, { cause: error });
    });
    const served = (Array.isArray(models["data"]) ? models["data"] : []) as {
      id?: unknown;
      owned_by?: unknown;
    }[];
    const names = served.map(({ id }) => String(id));
    const at = this.options.model === undefined ? 0 : names.indexOf(this.options.model);
    const found = served[at];
    if (found === undefined)
      throw new Error(
        `--model ${this.options.model ?? ""}: not served by ${address}, which has ${names.join(", ") || "none"}`,
      );
    this.model = String(found.id);
    this.kind = this.options.kind === "auto" ? kindOf(found.owned_by) : this.options.kind;
    const version = this.kind === "openai" ? undefined : await this.version();
    const exactOutput = this.kind !== "openai";
    return { kind: this.kind, address, model: this.model, version, exactOutput };
  }

  private async version(): Promise<string | undefined> {
    const { version } = await this.json(this.outside("/version")).catch(() => ({ version: "" }));
    return typeof version === "string" && version !== "" ? version : undefined;
  }

  /** A path beside `/v1`. */
  private outside(path: string): string {
    return `${this.prefix.replace(/\/v1$/, "")}${path}`;
  }

  private promptFields(text: string, pictures: Prompt["pictures"]): object {
    if (this.options.endpoint === "completions") return { prompt: text };
    const images = pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
    const content = images.length === 0 ? text : [...images, { type: "text", text }];
    return { messages: [{ role: "user", content }] };
  }

  /** Of `/tokenize`, or of the usage of an answer of one token. */
  async countTokens(text: string): Promise<number | undefined> {
    const prompt = { model: this.model, ...this.promptFields(text, []) };
    if (this.kind !== "openai") {
      const { count } = await this.json(this.outside("/tokenize"), prompt).catch(() => ({
        count: undefined,
      }));
      if (typeof count === "number") return count;
    }
    const path = `${this.prefix}${PATHS[this.options.endpoint]}`;
    const body = this.over({ ...prompt, max_tokens: 1 });
    return readUsage((await this.json(path, body))["usage"])?.promptTokens;
  }

  private over(body: object): object {
    const all = Object.entries({ ...body, ...this.options.extraBody });
    return Object.fromEntries(all.filter(([, value]) => value !== null));
  }

  private body(prompt: Prompt): object {
    const { outputTokens } = prompt;
    const exact =
      this.kind === "openai"
        ? {}
        : { min_tokens: outputTokens, ignore_eos: true, return_token_ids: true };
    return this.over({
      model: this.model,
      ...this.promptFields(prompt.text, prompt.pictures),
      max_tokens: outputTokens,
      temperature: this.options.temperature,
      stream: true,
      stream_options: { include_usage: true },
      ...exact,
    });
  }

  async run(prompt: Prompt, timer: StreamTimer, signal: AbortSignal): Promise<Usage> {
    const path = `${this.prefix}${PATHS[this.options.endpoint]}`;
    const response = await this.send(path, this.body(prompt), signal);
    if (response.statusCode !== 200) throw await refusal(response);
    const type = headerOf(response, "content-type") ?? "";
    if (!type.startsWith("text/event-stream")) {
      response.body.destroy();
      throw new TargetFailure(`the answer is ${type}, no stream`, { code: "no_stream" });
    }
    const reading = new Reading(timer);
    for await (const bytes of response.body as AsyncIterable<Uint8Array>) reading.feed(bytes);
    if (!reading.ended)
      throw new TargetFailure("the stream ended before the answer", { code: "truncated" });
    return reading.usage ?? NO_USAGE;
  }

  close(): Promise<void> {
    return this.pool.destroy();
  }
}

function kindOf(ownedBy: unknown): ServerKind {
  return ownedBy === "tessera" || ownedBy === "vllm" ? ownedBy : "openai";
}
