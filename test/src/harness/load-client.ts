/** Calls of Generate, each sent once and its outcome noted: what a load is made of. */
import assert from "node:assert/strict";
import { create, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { Client, credentials, Metadata, status, type ServiceError } from "@grpc/grpc-js";
import { ServeError, serviceDefinition } from "@tessera/proto";
import {
  GenerateRequestSchema,
  Inference,
  type Event,
  type GenerateResponse,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";

const { path, responseDeserialize } = serviceDefinition(Inference).generate;

/** What an answer says, however its text was cut into events. */
export interface Answer {
  text: string;
  tokenIds: number[];
  /** FinishReason; undefined before the end. */
  reason: number | undefined;
}

export interface Outcome {
  answer: Answer;
  /** Of prompt and answer, from the last event; undefined without it. */
  usedTokens: number | undefined;
  /** Of gRPC, and its text. */
  status: number;
  details: string;
  /** Where the server named its code. */
  error: ServeError | undefined;
}

export type RequestInit = MessageInitShape<typeof GenerateRequestSchema>;

/** Once for many calls. */
export function bodyOf(request: RequestInit): Buffer {
  return Buffer.from(toBinary(GenerateRequestSchema, create(GenerateRequestSchema, request)));
}

export interface SendOptions {
  deadlineMs?: number;
  onEvent?: (event: Event) => void;
}

const DEADLINE_MS = 120_000;

/**
 * HTTP/2 of Node 20 ends a connection, and all calls on it, that resets more than 1000 streams at once and 33 a second
 * from then on (docs/pitfalls.md): who cancels more has several.
 */
const CONNECTIONS = 8;

export class LoadClient {
  private readonly clients: Client[];
  private readonly metadata = new Metadata();
  private next = 0;

  constructor(address: string, apiKey?: string) {
    this.clients = Array.from(
      { length: CONNECTIONS },
      () =>
        new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }),
    );
    if (apiKey !== undefined) this.metadata.set("authorization", `Bearer ${apiKey}`);
  }

  private get client(): Client {
    return this.clients[this.next++ % CONNECTIONS] ?? assert.fail();
  }

  send(body: Buffer, options: SendOptions = {}): { outcome: Promise<Outcome>; cancel(): void } {
    const { deadlineMs = DEADLINE_MS, onEvent } = options;
    const stream = this.client.makeServerStreamRequest<Buffer, GenerateResponse>(
      path,
      (bytes) => bytes,
      responseDeserialize as (bytes: Buffer) => GenerateResponse,
      body,
      this.metadata,
      { deadline: Date.now() + deadlineMs },
    );
    const answer: Answer = { text: "", tokenIds: [], reason: undefined };
    let usedTokens: number | undefined;
    stream.on("data", ({ event }: GenerateResponse) => {
      if (event === undefined) return;
      const { kind } = event;
      if (kind.case === "delta") {
        answer.text += kind.value.text;
        answer.tokenIds.push(...kind.value.tokenIds);
      }
      if (kind.case === "finished") answer.reason = kind.value.reason;
      if (kind.case === "done")
        usedTokens =
          (kind.value.usage?.promptTokens ?? NaN) + (kind.value.usage?.completionTokens ?? NaN);
      onEvent?.(event);
    });
    const outcome = new Promise<Outcome>((resolve) => {
      const end = (error: ServiceError | undefined) =>
        resolve({
          answer,
          usedTokens,
          status: error?.code ?? status.OK,
          details: error?.details ?? "",
          error: error === undefined ? undefined : ServeError.fromStatus(error),
        });
      stream.on("error", (error: ServiceError) => end(error));
      stream.on("end", () => end(undefined));
    });
    return { outcome, cancel: () => stream.cancel() };
  }

  /** @throws Error when it is not answered to the end */
  async ask(body: Buffer): Promise<Answer> {
    const { answer, usedTokens, details, status: code } = await this.send(body).outcome;
    if (usedTokens === undefined) throw new Error(`no answer: ${code} ${details}`);
    return answer;
  }
  close(): void {
    for (const client of this.clients) client.close();
  }
}

/** Calls `send` `count` times, evenly over `durationMs` and whatever became of earlier ones. */
export async function openLoop(
  { count, durationMs }: { count: number; durationMs: number },
  send: (index: number) => void,
): Promise<void> {
  const start = performance.now();
  for (let sent = 0; sent < count;) {
    const due = Math.min(count, Math.ceil(((performance.now() - start) / durationMs) * count));
    while (sent < due) send(sent++);
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
}
const TICK_MS = 5;

/** Answers a second when `width` requests are always under way. */
export async function capacity(
  of: { width: number; durationMs: number },
  ask: (index: number) => Promise<unknown>,
): Promise<number> {
  const start = performance.now();
  let next = 0;
  let answered = 0;
  const one = async () => {
    while (performance.now() - start < of.durationMs) {
      await ask(next++);
      answered++;
    }
  };
  await Promise.all(Array.from({ length: of.width }, one));
  return (answered * 1e3) / (performance.now() - start);
}
