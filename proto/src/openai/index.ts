export * from "./request.js";
export * from "./response.js";
export * from "./chunks.js";
export * from "./completions.js";
export * from "./fields.js";
export * from "./responses-request.js";
export * from "./responses-events.js";
