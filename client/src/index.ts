export * from "./error.js";
export * from "./client.js";
export * from "./openai/request.js";
export * from "./openai/response.js";
export { FinishReason, Role } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
