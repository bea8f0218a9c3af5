/** Generate and Resume as a client calls them that sets its own metadata. */
import { create } from "@bufbuild/protobuf";
import { Client, credentials, Metadata, type ClientReadableStream } from "@grpc/grpc-js";
import { serviceDefinition } from "@tessera/proto";
import {
  GenerateRequestSchema,
  Inference,
  ResumeRequestSchema,
  type Event,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { MessageInitShape } from "@bufbuild/protobuf";

const DEADLINE_MS = 60_000;
const { generate, resume } = serviceDefinition(Inference);

interface WithEvent {
  event?: Event | undefined;
}

async function events(stream: ClientReadableStream<WithEvent>): Promise<Event[]> {
  const all: Event[] = [];
  for await (const message of stream) {
    const { event } = message as WithEvent;
    if (event !== undefined) all.push(event);
  }
  return all;
}

function metadataOf(headers: Record<string, string>): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return metadata;
}

/** @throws ServiceError */
export function rawGenerate(
  address: string,
  request: MessageInitShape<typeof GenerateRequestSchema>,
  headers: Record<string, string> = {},
): Promise<Event[]> {
  const client = new Client(address, credentials.createInsecure());
  const { path, requestSerialize, responseDeserialize } = generate;
  const stream = client.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    create(GenerateRequestSchema, request),
    metadataOf(headers),
    { deadline: Date.now() + DEADLINE_MS },
  );
  return events(stream).finally(() => client.close());
}

/** @throws ServiceError */
export function rawResume(
  address: string,
  request: MessageInitShape<typeof ResumeRequestSchema>,
): Promise<Event[]> {
  const client = new Client(address, credentials.createInsecure());
  const { path, requestSerialize, responseDeserialize } = resume;
  const stream = client.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    create(ResumeRequestSchema, request),
    new Metadata(),
    { deadline: Date.now() + DEADLINE_MS },
  );
  return events(stream).finally(() => client.close());
}
