/** The SDK: a typed gRPC client of a Tessera cluster. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Client, credentials, status, type CallOptions, type ServiceError } from "@grpc/grpc-js";
import {
  ServeError,
  serviceDefinition,
  type FieldViolation,
  type ServeErrorCode,
} from "@tessera/proto";
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
  type AbortResponse,
  type CountTokensResponse,
  type Event,
  type GenerateOnceResponse,
  type GenerateRequest,
  type GenerateResponse,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";

const INFERENCE = serviceDefinition(Inference);
const CLUSTER = serviceDefinition(Cluster);
const DEFAULT_DEADLINE_MS = 10 * 60_000;
const MAX_ATTEMPTS = 5;
const FIRST_BACKOFF_MS = 100;
const MAX_MESSAGE_BYTES = 64 << 20;

/** Plain objects of GenerateRequest's fields; all are optional. */
export type GenerateInput = Exclude<
  MessageInitShape<typeof GenerateRequestSchema>,
  GenerateRequest
>;

export interface ClientOptions {
  /** host:port; several are tried in turn, before a request has started. */
  addresses: string[];
  /** Of every call that names none; default 10 minutes. */
  deadlineMs?: number;
  /** PEM; absent: plain text. */
  tls?: { ca: Buffer; cert?: Buffer; key?: Buffer };
}

export interface CallSettings {
  signal?: AbortSignal;
  deadlineMs?: number;
}

/** A failure of a call: the server's code, or TRANSPORT when none came. */
export class TesseraError extends Error {
  readonly code: ServeErrorCode | "TRANSPORT";
  readonly grpcStatus: status;
  readonly violations: readonly FieldViolation[];
  readonly retryDelayMs: number | undefined;

  private constructor(
    from: ServiceError | undefined,
    said: ServeError | undefined,
    message: string,
    cause: unknown,
  ) {
    super(message, { cause });
    this.name = "TesseraError";
    this.code = said?.code ?? "TRANSPORT";
    this.grpcStatus = from?.code ?? status.UNKNOWN;
    this.violations = said?.violations ?? [];
    this.retryDelayMs = said?.retryDelayMs;
  }
  static from(error: unknown): TesseraError {
    if (error instanceof TesseraError) return error;
    const service = error instanceof Error && "code" in error ? (error as ServiceError) : undefined;
    const said = service === undefined ? undefined : ServeError.fromStatus(service);
    const text = error instanceof Error ? error.message : String(error);
    return new TesseraError(service, said, said?.message ?? service?.details ?? text, error);
  }
  /** Nothing has started, and the server or the network says that trying again may help. */
  get retryable(): boolean {
    if (this.grpcStatus === status.UNAVAILABLE) return this.code !== "DRAINING";
    return this.grpcStatus === status.RESOURCE_EXHAUSTED && this.retryDelayMs !== undefined;
  }
}

export class TesseraClient {
  private readonly clients: Client[];
  private next = 0;

  constructor(private readonly options: ClientOptions) {
    const { tls } = options;
    const security =
      tls === undefined
        ? credentials.createInsecure()
        : credentials.createSsl(tls.ca, tls.key ?? null, tls.cert ?? null);
    const limits = {
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    };
    this.clients = options.addresses.map((address) => new Client(address, security, limits));
    if (this.clients.length === 0) throw new RangeError("addresses: at least one is needed");
  }

  private pick(): Client {
    const client = this.clients[this.next++ % this.clients.length];
    if (client === undefined) throw new RangeError("addresses: at least one is needed");
    return client;
  }
  private callOptions(settings: CallSettings): CallOptions {
    return {
      deadline:
        Date.now() + (settings.deadlineMs ?? this.options.deadlineMs ?? DEFAULT_DEADLINE_MS),
    };
  }

  /** Runs `attempt` again while its failure is retryable; waits what the server said, or doubling times. */
  private async retrying<T>(attempt: () => Promise<T>, settings: CallSettings): Promise<T> {
    for (let tries = 1; ; tries++) {
      settings.signal?.throwIfAborted();
      try {
        return await attempt();
      } catch (error) {
        const typed = TesseraError.from(error);
        if (!typed.retryable || tries === MAX_ATTEMPTS) throw typed;
        const delayMs = typed.retryDelayMs ?? FIRST_BACKOFF_MS * 2 ** (tries - 1);
        await new Promise((resolve) => setTimeout(resolve, delayMs));
      }
    }
  }

  private unary<I, O>(
    method: {
      path: string;
      requestSerialize: (m: never) => Buffer;
      responseDeserialize: (b: Buffer) => unknown;
    },
    request: I,
    settings: CallSettings,
  ): Promise<O> {
    const attempt = () =>
      new Promise<O>((resolve, reject) => {
        const call = this.pick().makeUnaryRequest(
          method.path,
          method.requestSerialize as unknown as (message: I) => Buffer,
          method.responseDeserialize as (bytes: Buffer) => O,
          request,
          this.callOptions(settings),
          (error, response) => {
            if (error !== null) reject(error);
            else if (response !== undefined) resolve(response);
          },
        );
        settings.signal?.addEventListener("abort", () => call.cancel(), { once: true });
      });
    return this.retrying(attempt, settings);
  }

  /** The events of a request, in order. Leaving the loop, or the signal, cancels it. @throws TesseraError */
  async *generate(request: GenerateInput, settings: CallSettings = {}): AsyncGenerator<Event> {
    const message = create(GenerateRequestSchema, request);
    for (let tries = 1; ; tries++) {
      settings.signal?.throwIfAborted();
      const call = this.pick().makeServerStreamRequest(
        INFERENCE.generate.path,
        INFERENCE.generate.requestSerialize,
        INFERENCE.generate.responseDeserialize,
        message,
        this.callOptions(settings),
      );
      const cancel = () => call.cancel();
      settings.signal?.addEventListener("abort", cancel, { once: true });
      let started = false;
      try {
        for await (const { event } of call as AsyncIterable<GenerateResponse>) {
          started = true;
          if (event !== undefined) yield event;
        }
        return;
      } catch (error) {
        const typed = TesseraError.from(error);
        if (started || !typed.retryable || tries === MAX_ATTEMPTS) throw typed;
        await new Promise((resolve) =>
          setTimeout(resolve, typed.retryDelayMs ?? FIRST_BACKOFF_MS * 2 ** (tries - 1)),
        );
      } finally {
        settings.signal?.removeEventListener("abort", cancel);
        call.cancel();
      }
    }
  }

  generateOnce(request: GenerateInput, settings: CallSettings = {}): Promise<GenerateOnceResponse> {
    return this.unary(
      INFERENCE.generateOnce,
      create(GenerateOnceRequestSchema, { request }),
      settings,
    );
  }
  countTokens(request: GenerateInput, settings: CallSettings = {}): Promise<CountTokensResponse> {
    return this.unary(
      INFERENCE.countTokens,
      create(CountTokensRequestSchema, { request }),
      settings,
    );
  }
  abort(requestId: string, settings: CallSettings = {}): Promise<AbortResponse> {
    return this.unary(INFERENCE.abort, create(AbortRequestSchema, { requestId }), settings);
  }
  getModel(settings: CallSettings = {}): Promise<GetModelResponse> {
    return this.unary(CLUSTER.getModel, create(GetModelRequestSchema), settings);
  }
  getCluster(settings: CallSettings = {}): Promise<GetClusterResponse> {
    return this.unary(CLUSTER.getCluster, create(GetClusterRequestSchema), settings);
  }
  drain(settings: CallSettings = {}): Promise<DrainResponse> {
    return this.unary(CLUSTER.drain, create(DrainRequestSchema), settings);
  }
  close(): void {
    for (const client of this.clients) client.close();
  }
}
