/** gRPC clients that know nothing of this repository: reflection and health, from their public protos. */
import { fileURLToPath } from "node:url";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, type FileDescriptorProto } from "@bufbuild/protobuf/wkt";
import {
  Client,
  credentials,
  loadPackageDefinition,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ServiceError,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { protoPath } from "grpc-health-check";

const DEADLINE_MS = 10_000;
const OPTIONS = { keepCase: true, longs: String, enums: String, oneofs: true };
const REFLECTION = fileURLToPath(
  import.meta.resolve("@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto"),
);

function load(path: string, name: string, address: string): Client {
  const found = name
    .split(".")
    .reduce((scope: unknown, part) => (scope as Record<string, unknown>)[part], {
      ...loadPackageDefinition(loadSync(path, OPTIONS)),
    });
  return new (found as typeof Client)(address, credentials.createInsecure());
}

interface ReflectionAnswer {
  list_services_response?: { service: { name: string }[] };
  file_descriptor_response?: { file_descriptor_proto: Uint8Array[] };
  error_response?: { error_code: number; error_message: string };
}

/** One question of grpc.reflection.v1. */
export function reflect(
  address: string,
  question: { list_services: string } | { file_containing_symbol: string },
): Promise<ReflectionAnswer> {
  const client = load(REFLECTION, "grpc.reflection.v1.ServerReflection", address) as Client & {
    ServerReflectionInfo(options: {
      deadline: number;
    }): ClientDuplexStream<object, ReflectionAnswer>;
  };
  const stream = client.ServerReflectionInfo({ deadline: Date.now() + DEADLINE_MS });
  return new Promise<ReflectionAnswer>((resolve, reject) => {
    stream.once("data", resolve).once("error", reject);
    stream.write(question);
    stream.end();
  }).finally(() => client.close());
}

export async function filesOf(address: string, symbol: string): Promise<FileDescriptorProto[]> {
  const answer = await reflect(address, { file_containing_symbol: symbol });
  const files = answer.file_descriptor_response?.file_descriptor_proto ?? [];
  return files.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
}

interface HealthAnswer {
  status: string;
}
type HealthClient = Client & {
  check(
    request: { service: string },
    options: { deadline: number },
    callback: (error: ServiceError | null, answer?: HealthAnswer) => void,
  ): void;
  watch(request: { service: string }): ClientReadableStream<HealthAnswer>;
};

/** Check of grpc.health.v1. @throws ServiceError */
export function checkHealth(address: string, service: string): Promise<string> {
  const client = load(protoPath, "grpc.health.v1.Health", address) as HealthClient;
  return new Promise<string>((resolve, reject) => {
    client.check({ service }, { deadline: Date.now() + DEADLINE_MS }, (error, answer) =>
      error === null ? resolve(answer?.status ?? "") : reject(error),
    );
  }).finally(() => client.close());
}

/** Watch of grpc.health.v1: `seen` grows with each status. */
export function watchHealth(
  address: string,
  service: string,
): { seen: string[]; stop: () => void } {
  const client = load(protoPath, "grpc.health.v1.Health", address) as HealthClient;
  const seen: string[] = [];
  const call = client.watch({ service });
  call.on("data", ({ status }: HealthAnswer) => seen.push(status));
  call.on("error", () => seen.push("ENDED"));
  return {
    seen,
    stop() {
      call.cancel();
      client.close();
    },
  };
}
