export type { TlsOptions } from "./channels.js";
export * from "./error.js";
export * from "./client.js";
export * from "./tls-files.js";
export * from "@tessera/proto/openai";
export { FinishReason, Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
