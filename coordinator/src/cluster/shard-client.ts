/** One worker, as the coordinator talks to it. */
import { create } from "@bufbuild/protobuf";
import { Client, status, type ClientDuplexStream, type ServiceError } from "@grpc/grpc-js";
import {
  peerChannelCredentials,
  ServeError,
  serviceDefinition,
  type PeerTls,
} from "@tessera/proto";
import {
  EncodeRequestSchema,
  FenceRequestSchema,
  GetInfoRequestSchema,
  GetStatsRequestSchema,
  JoinRequestSchema,
  MoreCandidatesRequestSchema,
  Shard,
  type EncodeRequest,
  type EncodeResponse,
  type FenceResponse,
  type GetInfoResponse,
  type GetStatsResponse,
  type JoinReady,
  type JoinRequest,
  type JoinResponse,
  type MoreCandidatesRequest,
  type MoreCandidatesResponse,
  type StepResponse,
} from "@tessera/proto/gen/tessera/shard/v1/shard_pb.js";

const METHODS = serviceDefinition(Shard);
const WINDOW_BYTES = 64 << 20;
const CHANNEL = {
  "grpc-node.flow_control_window": WINDOW_BYTES,
  "grpc.max_receive_message_length": 256 << 20,
  "grpc.max_send_message_length": 256 << 20,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 500,
};

export type StepStream = ClientDuplexStream<Uint8Array, StepResponse>;

/** A failure of a call to a rank, as an error that names the rank to blame. */
export function fromCall(error: ServiceError, rank: number, address: string): ServeError {
  const said = ServeError.fromStatus(error);
  const blamed = Number(said?.metadata["rank"] ?? rank);
  const name = blamed === rank ? `rank ${rank} (${address})` : `rank ${blamed}`;
  const metadata = { rank: String(blamed) };
  if (said !== undefined)
    return new ServeError(said.code, `${name}: ${said.message}`, { metadata, cause: error });
  const late = error.code === status.DEADLINE_EXCEEDED;
  return new ServeError(
    late ? "STEP_TIMEOUT" : "RANK_LOST",
    `${name}: ${error.details || error.message}`,
    {
      metadata,
      cause: error,
    },
  );
}

export class ShardClient {
  private readonly client: Client;

  constructor(
    readonly address: string,
    readonly rank: number,
    /** Absent: plain text. */
    tls: PeerTls | undefined,
  ) {
    this.client = new Client(address, peerChannelCredentials(tls), CHANNEL);
  }

  private unary<I, O>(
    method: {
      path: string;
      requestSerialize: (m: never) => Buffer;
      responseDeserialize: (b: Buffer) => unknown;
    },
    request: I,
    deadlineMs: number,
  ): Promise<O> {
    return new Promise((resolve, reject) => {
      this.client.makeUnaryRequest(
        method.path,
        method.requestSerialize as unknown as (message: I) => Buffer,
        method.responseDeserialize as (bytes: Buffer) => O,
        request,
        { deadline: Date.now() + deadlineMs },
        (error, response) => {
          if (error !== null) reject(fromCall(error, this.rank, this.address));
          else if (response !== undefined) resolve(response);
        },
      );
    });
  }

  getInfo(deadlineMs: number): Promise<GetInfoResponse> {
    return this.unary(METHODS.getInfo, create(GetInfoRequestSchema), deadlineMs);
  }
  getStats(deadlineMs: number): Promise<GetStatsResponse> {
    return this.unary(METHODS.getStats, create(GetStatsRequestSchema), deadlineMs);
  }
  fence(epoch: bigint, deadlineMs: number): Promise<FenceResponse> {
    return this.unary(METHODS.fence, create(FenceRequestSchema, { epoch }), deadlineMs);
  }
  encode(request: Omit<EncodeRequest, "$typeName">): Promise<EncodeResponse> {
    const message = create(EncodeRequestSchema, request);
    return this.unary(METHODS.encode, message, request.deadlineMs);
  }
  moreCandidates(
    request: Omit<MoreCandidatesRequest, "$typeName">,
    deadlineMs: number,
  ): Promise<MoreCandidatesResponse> {
    return this.unary(
      METHODS.moreCandidates,
      create(MoreCandidatesRequestSchema, request),
      deadlineMs,
    );
  }

  join(
    request: Omit<JoinRequest, "$typeName">,
    options: { deadlineMs: number; onProgress: (done: number, total: number) => void },
  ): Promise<JoinReady> {
    return new Promise((resolve, reject) => {
      const call = this.client.makeServerStreamRequest(
        METHODS.join.path,
        METHODS.join.requestSerialize,
        METHODS.join.responseDeserialize,
        create(JoinRequestSchema, request),
        { deadline: Date.now() + options.deadlineMs },
      );
      call.on("data", ({ kind }: JoinResponse) => {
        if (kind.case === "progress")
          options.onProgress(Number(kind.value.done), Number(kind.value.total));
        if (kind.case === "ready") resolve(kind.value);
      });
      call.on("error", (error: ServiceError) => reject(fromCall(error, this.rank, this.address)));
      call.on("end", () =>
        reject(
          new ServeError("RANK_LOST", `rank ${this.rank} (${this.address}): join ended early`),
        ),
      );
    });
  }

  /** Plans are given as the bytes of StepRequest, the same for every rank. */
  openSteps(): StepStream {
    return this.client.makeBidiStreamRequest(
      METHODS.step.path,
      (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
      METHODS.step.responseDeserialize,
    );
  }

  close(): void {
    this.client.close();
  }
}
