export * from "./architectures/nvlm-d.js";
export * from "./config.js";
export * from "./errors.js";
export * from "./folder.js";
export * from "./lanes.js";
export * from "./placement.js";
export * from "./program.js";
export { readSafetensors, type TensorSource } from "./safetensors.js";
export { tensorShapes } from "./tensors.js";
