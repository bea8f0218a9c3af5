/** The SDK: a typed gRPC client of a Tessera cluster. */
import { create } from "@bufbuild/protobuf";
import {
  Client,
  credentials,
  InterceptingCall,
  type ChannelCredentials,
  type Interceptor,
} from "@grpc/grpc-js";
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
  type AbortResponse,
  type CountTokensResponse,
  type Event,
  type GenerateOnceResponse,
  type GenerateResponse,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { Attempts } from "./attempts.js";
import { TesseraError } from "./error.js";

const INFERENCE = serviceDefinition(Inference);
const CLUSTER = serviceDefinition(Cluster);
/** Of a call that names no deadline. */
export const DEFAULT_DEADLINE_MS = 10 * 60_000;
const MAX_MESSAGE_BYTES = 64 << 20;

/** PEM files. */
export interface TlsOptions {
  /** Who signed the server's certificate; absent: the system's authorities. */
  ca?: Buffer;
  /** The client's own certificate and key, where the server asks for one. */
  cert?: Buffer;
  key?: Buffer;
  /** The name in the server's certificate, where it is not the address's host. */
  serverName?: string;
}

export interface ClientOptions {
  /** host:port; calls are dealt over them, and a call that fails before it has started tries the next. */
  addresses: string[];
  /** Of every call that names none, over all its attempts; default 10 minutes. */
  deadlineMs?: number;
  /** Absent: plain text. */
  tls?: TlsOptions;
  /** Goes with every call as `authorization: Bearer …`. */
  apiKey?: string;
  /** Of a call; 1: what fails is told at once. Default: MAX_ATTEMPTS, or one for each address when there are more. */
  maxAttempts?: number;
}

export interface CallSettings {
  /** Ends the call with code ABORTED, at any time; the server stops computing it. */
  signal?: AbortSignal;
  deadlineMs?: number;
}

interface UnaryMethod<I, O> {
  path: string;
  requestSerialize: (message: I) => Buffer;
  responseDeserialize: (bytes: Buffer) => O;
}

function checkDeadline(deadlineMs: number): void {
  if (Number.isFinite(deadlineMs) && deadlineMs > 0) return;
  throw new RangeError(`deadlineMs: ${deadlineMs}, must be above 0`);
}

function securityOf(tls: TlsOptions | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  if ((tls.cert === undefined) !== (tls.key === undefined))
    throw new RangeError("tls: cert and key come together");
  return credentials.createSsl(tls.ca ?? null, tls.key ?? null, tls.cert ?? null);
}

/** Puts the key on every call of a channel. @throws RangeError, which does not say the key */
function bearerOf(apiKey: string): Interceptor {
  if (!/^[\x21-\x7e]+$/.test(apiKey))
    throw new RangeError("apiKey: must be printable ASCII without spaces");
  return (options, next) =>
    new InterceptingCall(next(options), {
      start(metadata, listener, start) {
        metadata.set("authorization", `Bearer ${apiKey}`);
        start(metadata, listener);
      },
    });
}

function callOnce<I, O>(
  client: Client,
  method: UnaryMethod<I, O>,
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
    const security = securityOf(options.tls);
    const { serverName } = options.tls ?? {};
    const interceptors = options.apiKey === undefined ? [] : [bearerOf(options.apiKey)];
    const channel = {
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      ...(serverName === undefined ? {} : { "grpc.ssl_target_name_override": serverName }),
    };
    this.clients = addresses.map(
      (address) => new Client(address, security, { ...channel, interceptors }),
    );
  }

  /** The attempts of a call, its deadline over all of them. */
  private begin(settings: CallSettings): { attempts: Attempts; deadline: number } {
    const limitMs = settings.deadlineMs ?? this.options.deadlineMs ?? DEFAULT_DEADLINE_MS;
    checkDeadline(limitMs);
    const deadline = Date.now() + limitMs;
    const attempts = new Attempts({
      firstAddress: this.next++ % this.clients.length,
      addressCount: this.clients.length,
      maxAttempts: this.options.maxAttempts,
      deadlineMs: deadline,
      signal: settings.signal,
    });
    return { attempts, deadline };
  }
  private at(index: number): Client {
    const client = this.clients[index];
    if (client === undefined) throw new RangeError(`addresses: there is no ${index}`);
    return client;
  }

  private async unary<I, O>(
    method: UnaryMethod<I, O>,
    request: I,
    settings: CallSettings,
  ): Promise<O> {
    const { attempts, deadline } = this.begin(settings);
    for (;;) {
      const client = this.at(attempts.next());
      try {
        return await callOnce(client, method, request, { deadline, signal: settings.signal });
      } catch (error) {
        await attempts.afterFailure(error);
      }
    }
  }

  /**
   * The events of a request, in order. Leaving the loop, or the signal, cancels it. Tried again only while no event has
   * come. @throws TesseraError
   */
  async *generate(request: GenerateInput, settings: CallSettings = {}): AsyncGenerator<Event> {
    const message = create(GenerateRequestSchema, request);
    const { attempts, deadline } = this.begin(settings);
    const { signal } = settings;
    for (;;) {
      const { path, requestSerialize, responseDeserialize } = INFERENCE.generate;
      const call = this.at(attempts.next()).makeServerStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        message,
        { deadline },
      );
      const cancel = () => call.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
      let started = false;
      try {
        for await (const { event } of call as AsyncIterable<GenerateResponse>) {
          started = true;
          if (event !== undefined) yield event;
        }
        return;
      } catch (error) {
        if (signal?.aborted === true) throw TesseraError.aborted(signal);
        if (started) throw TesseraError.from(error);
        await attempts.afterFailure(error);
      } finally {
        signal?.removeEventListener("abort", cancel);
        call.cancel();
      }
    }
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
