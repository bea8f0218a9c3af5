/** The SDK: a typed gRPC client of a Tessera cluster. */
import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Client } from "@grpc/grpc-js";
import { serviceDefinition } from "@tessera/proto";
import type { GenerateInput } from "@tessera/proto/openai";
import {
  Cluster,
  DrainRequestSchema,
  GetClusterRequestSchema,
  GetModelRequestSchema,
  type DrainResponse,
  type GetClusterResponse,
  type GetModelResponse,
} from "@tessera/proto/gen/tessera/v1/cluster_pb.js";
import {
  AbortRequestSchema,
  CountTokensRequestSchema,
  GenerateOnceRequestSchema,
  GenerateRequestSchema,
  Inference,
  ResumeRequestSchema,
  type AbortResponse,
  type CountTokensResponse,
  type Event,
  type GenerateOnceResponse,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { Attempts, type AttemptOptions } from "./attempts.js";
import { openChannels, type TlsOptions } from "./channels.js";
import { TesseraError } from "./error.js";
import { Reconnects } from "./reconnects.js";
import { inOrder, resumable, type StreamCalls } from "./resumable.js";

const INFERENCE = serviceDefinition(Inference);
const CLUSTER = serviceDefinition(Cluster);
/** Of a call that names no deadline. */
export const DEFAULT_DEADLINE_MS = 10 * 60_000;
/** For the server to hear that nobody wants the rest of a resumable stream. */
const LEAVE_MS = 2000;

export interface ClientOptions {
  /** host:port; calls are dealt over them, and a call that fails before it has started tries the next. */
  addresses: string[];
  /** Of every call that names none, over all its attempts; default 10 minutes. */
  deadlineMs?: number;
  /** Absent: plain text. */
  tls?: TlsOptions;
  /** Goes with every call as `authorization: Bearer …`. */
  apiKey?: string;
  /**
   * An address that is there several times has as many connections; default: it shares one, with other clients of this
   * process too. For who has thousands of calls under way.
   */
  ownConnections?: boolean;
  /** Of a call; 1: what fails is told at once. Default: MAX_ATTEMPTS, or one for each address when there are more. */
  maxAttempts?: number;
}

export interface CallSettings {
  /** Ends the call with code ABORTED, at any time; the server stops computing it. */
  signal?: AbortSignal;
  deadlineMs?: number;
}

/** Of a unary call or of one that streams its answers. */
interface Method<I, O> {
  path: string;
  requestSerialize: (message: I) => Buffer;
  responseDeserialize: (bytes: Buffer) => O;
}

function checkDeadline(deadlineMs: number): void {
  if (Number.isFinite(deadlineMs) && deadlineMs > 0) return;
  throw new RangeError(`deadlineMs: ${deadlineMs}, must be above 0`);
}

function callOnce<I, O>(
  client: Client,
  method: Method<I, O>,
  request: I,
  { deadline, signal }: { deadline: number; signal: AbortSignal | undefined },
): Promise<O> {
  return new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      { deadline },
      (error, response) => {
        signal?.removeEventListener("abort", cancel);
        if (error !== null) reject(error);
        else if (response !== undefined) resolve(response);
      },
    );
    const cancel = () => call.cancel();
    signal?.addEventListener("abort", cancel, { once: true });
  });
}

export class TesseraClient {
  private readonly clients: Client[];
  private next = 0;

  /** @throws RangeError for no address, a deadline, key or attempts that are none, or half of `cert` and `key`. */
  constructor(private readonly options: ClientOptions) {
    const { addresses, deadlineMs = DEFAULT_DEADLINE_MS } = options;
    if (addresses.length === 0) throw new RangeError("addresses: at least one is needed");
    checkDeadline(deadlineMs);
    const { maxAttempts } = options;
    if (maxAttempts !== undefined && !(Number.isSafeInteger(maxAttempts) && maxAttempts > 0))
      throw new RangeError(`maxAttempts: ${maxAttempts}, must be a whole number above 0`);
    this.clients = openChannels(options);
  }

  /** Of a call that begins now, its deadline over all attempts. `firstAddress`: the next in turn when absent. */
  private attemptOptions(settings: CallSettings, firstAddress?: number): AttemptOptions {
    const limitMs = settings.deadlineMs ?? this.options.deadlineMs ?? DEFAULT_DEADLINE_MS;
    checkDeadline(limitMs);
    return {
      firstAddress: firstAddress ?? this.next++ % this.clients.length,
      addressCount: this.clients.length,
      maxAttempts: this.options.maxAttempts,
      deadlineMs: Date.now() + limitMs,
      signal: settings.signal,
    };
  }
  private at(index: number): Client {
    const client = this.clients[index];
    if (client === undefined) throw new RangeError(`addresses: there is no ${index}`);
    return client;
  }

  private async unary<I, O>(
    method: Method<I, O>,
    request: I,
    settings: CallSettings,
    firstAddress?: number,
  ): Promise<O> {
    const attempts = new Attempts(this.attemptOptions(settings, firstAddress));
    const { deadlineMs: deadline, signal } = attempts.options;
    for (;;) {
      const client = this.at(attempts.next());
      try {
        return await callOnce(client, method, request, { deadline, signal });
      } catch (error) {
        await attempts.afterFailure(error);
      }
    }
  }

  /** The events of one call. Leaving the loop, or the signal, cancels it. */
  private async *stream<I, O extends { event?: Event | undefined }>(
    address: number,
    { path, requestSerialize, responseDeserialize }: Method<I, O>,
    request: I,
    { deadline, signal }: { deadline: number; signal: AbortSignal | undefined },
  ): AsyncGenerator<Event> {
    const call = this.at(address).makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      { deadline },
    );
    const cancel = () => call.cancel();
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      for await (const { event } of call as AsyncIterable<O>) if (event !== undefined) yield event;
    } finally {
      signal?.removeEventListener("abort", cancel);
      call.cancel();
    }
  }

  /**
   * The events of a request, in order. Leaving the loop, or the signal, ends it on the server. With `resume` a cut
   * connection is made again and the stream goes on where it was; without, a call is tried again only while no event
   * has come. @throws TesseraError
   */
  async *generate(request: GenerateInput, settings: CallSettings = {}): AsyncGenerator<Event> {
    if (request.resume === true) {
      yield* this.resumable(request, settings);
      return;
    }
    const message = create(GenerateRequestSchema, request);
    const attempts = new Attempts(this.attemptOptions(settings));
    const { deadlineMs: deadline, signal } = attempts.options;
    for (;;) {
      let started = false;
      const call = { deadline, signal };
      try {
        const events = this.stream(attempts.next(), INFERENCE.generate, message, call);
        for await (const event of inOrder(events, 0n)) {
          started = true;
          yield event;
        }
        return;
      } catch (error) {
        if (signal?.aborted === true) throw TesseraError.aborted(signal);
        if (started) throw TesseraError.from(error);
        await attempts.afterFailure(error);
      }
    }
  }

  private resumable(request: GenerateInput, settings: CallSettings): AsyncGenerator<Event> {
    const options = this.attemptOptions(settings);
    const { deadlineMs: deadline, signal } = options;
    const requestId = request.requestId ?? `sdk-${randomUUID()}`;
    const message = create(GenerateRequestSchema, { ...request, requestId });
    const call = { deadline, signal };
    const calls: StreamCalls = {
      generate: (address) => this.stream(address, INFERENCE.generate, message, call),
      resume: (address, place) =>
        this.stream(
          address,
          INFERENCE.resume,
          create(ResumeRequestSchema, { requestId, ...place }),
          call,
        ),
      abort: (address) => {
        const request = create(AbortRequestSchema, { requestId });
        return this.unary(INFERENCE.abort, request, { deadlineMs: LEAVE_MS }, address);
      },
    };
    return resumable(calls, new Reconnects(options), signal);
  }

  /** The whole answer. A call that fails on the way may be computed again. @throws TesseraError */
  generateOnce(request: GenerateInput, settings: CallSettings = {}): Promise<GenerateOnceResponse> {
    return this.unary(
      INFERENCE.generateOnce,
      create(GenerateOnceRequestSchema, { request }),
      settings,
    );
  }
  /** Tokens of the prompt, pictures included, without running it. @throws TesseraError */
  countTokens(request: GenerateInput, settings: CallSettings = {}): Promise<CountTokensResponse> {
    return this.unary(
      INFERENCE.countTokens,
      create(CountTokensRequestSchema, { request }),
      settings,
    );
  }
  /** Ends a running request from elsewhere; its stream finishes with reason ABORTED. @throws TesseraError */
  abort(requestId: string, settings: CallSettings = {}): Promise<AbortResponse> {
    return this.unary(INFERENCE.abort, create(AbortRequestSchema, { requestId }), settings);
  }
  /** What is served and its limits. @throws TesseraError */
  getModel(settings: CallSettings = {}): Promise<GetModelResponse> {
    return this.unary(CLUSTER.getModel, create(GetModelRequestSchema), settings);
  }
  /** State, epoch, placement, ranks and load. @throws TesseraError */
  getCluster(settings: CallSettings = {}): Promise<GetClusterResponse> {
    return this.unary(CLUSTER.getCluster, create(GetClusterRequestSchema), settings);
  }
  /** Takes nothing new; resolves when what runs has ended, at most 30 s later. @throws TesseraError */
  drain(settings: CallSettings = {}): Promise<DrainResponse> {
    return this.unary(CLUSTER.drain, create(DrainRequestSchema), settings);
  }
  /** Closes the connections; calls under way end. */
  close(): void {
    for (const client of this.clients) client.close();
  }
}
