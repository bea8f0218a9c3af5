/** A load's requests to a Tessera cluster over gRPC. */
import {
  FinishReason,
  Role,
  TesseraClient,
  TesseraError,
  type GenerateInput,
  type TlsOptions,
} from "@tessera/client";
import type { StreamTimer, Usage } from "./stream-timer.js";
import { TargetFailure, type ServerInfo, type Target } from "./target.js";
import type { Prompt } from "./workload.js";

const CHECK_DEADLINE_MS = 30_000;
/**
 * Requests are dealt over them, those before the load too, which open them. A server ends a connection that is reset
 * more than 1000 streams at once (docs/pitfalls.md): so many time out together under an overload, and others would
 * fail for it.
 */
const CONNECTIONS = 8;

export interface GrpcOptions {
  /** host:port */
  address: string;
  apiKey: string | undefined;
  /** Undefined: the one that is served. */
  model: string | undefined;
  temperature: number;
  /** Undefined: plain text. */
  tls: TlsOptions | undefined;
  /** Of a request, its whole answer included. */
  requestDeadlineMs: number;
}

function failureOf(error: unknown): TargetFailure {
  const { code, message, retryDelayMs } = TesseraError.from(error);
  return new TargetFailure(message, {
    code: `grpc_${code}`,
    refused: code === "OVERLOADED",
    retryAfterMs: retryDelayMs,
    cause: error,
  });
}

/** @throws TargetFailure for an end that is not the answer's. */
function checkEnd({ reason, errorMessage }: { reason: FinishReason; errorMessage: string }): void {
  if (reason === FinishReason.ERROR)
    throw new TargetFailure(errorMessage, { code: "stream_error" });
  if (reason === FinishReason.ABORTED)
    throw new TargetFailure("the answer ended with reason abort", { code: "finish_abort" });
}

type Messages = NonNullable<GenerateInput["messages"]>;

function messagesOf(text: string, pictures: Prompt["pictures"]): Messages {
  const images = pictures.map(({ data }) => ({
    content: { case: "image" as const, value: { data } },
  }));
  const parts = [...images, { content: { case: "text" as const, value: text } }];
  return [{ role: Role.USER, parts }];
}

export class GrpcTarget implements Target {
  private readonly client: TesseraClient;

  /** One attempt a call: what the server refuses is counted, not asked again. */
  constructor(private readonly options: GrpcOptions) {
    const { address, apiKey, tls, requestDeadlineMs } = options;
    this.client = new TesseraClient({
      addresses: Array<string>(CONNECTIONS).fill(address),
      ownConnections: true,
      deadlineMs: requestDeadlineMs,
      maxAttempts: 1,
      ...(apiKey === undefined ? {} : { apiKey }),
      ...(tls === undefined ? {} : { tls }),
    });
  }

  async check(): Promise<ServerInfo> {
    const { address, model } = this.options;
    const deadline = { deadlineMs: CHECK_DEADLINE_MS };
    const { name } = await this.client.getModel(deadline).catch((error: unknown) => {
      const { message } = TesseraError.from(error);
      throw new Error(`--server ${address}: no answer to start with: ${message}`, { cause: error });
    });
    if (model !== undefined && model !== name)
      throw new Error(`--model ${model}: not served by ${address}, which has ${name}`);
    const cluster = await this.client.getCluster(deadline).catch(() => undefined);
    const version = cluster?.version.replace(/^tessera /, "");
    return { kind: "tessera", address, model: name, version, exactOutput: true };
  }

  async countTokens(text: string): Promise<number> {
    const request = { messages: messagesOf(text, []) };
    return (await this.client.countTokens(request, { deadlineMs: CHECK_DEADLINE_MS })).promptTokens;
  }

  private request({ text, pictures, outputTokens }: Prompt): GenerateInput {
    return {
      model: this.options.model ?? "",
      messages: messagesOf(text, pictures),
      maxTokens: outputTokens,
      minTokens: outputTokens,
      stop: { ignoreEos: true },
      sampling: { temperature: this.options.temperature },
      returnTokenIds: true,
    };
  }

  async run(prompt: Prompt, timer: StreamTimer, signal: AbortSignal): Promise<Usage> {
    const usage: Usage = {
      promptTokens: undefined,
      completionTokens: undefined,
      cachedTokens: undefined,
    };
    let done = false;
    const events = this.client.generate(this.request(prompt), { signal });
    try {
      for await (const { kind } of events) {
        if (kind.case === "started") usage.promptTokens = kind.value.promptTokens;
        else if (kind.case === "delta") timer.addChunk(timer.now(), kind.value.tokenIds.length);
        else if (kind.case === "done") {
          done = true;
          usage.completionTokens = kind.value.usage?.completionTokens;
          usage.cachedTokens = kind.value.usage?.cachedTokens;
        } else if (kind.case === "finished") checkEnd(kind.value);
      }
      if (!done)
        throw new TargetFailure("the stream ended before the answer", { code: "truncated" });
    } catch (error) {
      throw error instanceof TargetFailure ? error : failureOf(error);
    }
    return usage;
  }

  close(): Promise<void> {
    this.client.close();
    return Promise.resolve();
  }
}
