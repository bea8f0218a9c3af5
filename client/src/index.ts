export * from "./client.js";
export * from "./openai/request.js";
export * from "./openai/response.js";
