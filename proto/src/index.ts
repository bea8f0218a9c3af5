export * from "./errors.js";
export * from "./grpc.js";
