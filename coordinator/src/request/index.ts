export * from "./check.js";
export * from "./choice-text.js";
export * from "./image-decode.js";
export * from "./prepare.js";
export * from "./prompt.js";
export * from "./tiling.js";
export * from "./tokenizer.js";
export type * from "./types.js";
