export { startCoordinator, type RunningCoordinator } from "./coordinator.js";
export type { CoordinatorOptions } from "./engine/options.js";
export type { SecurityOptions } from "./access/security.js";
export { tenantNameProblem } from "./access/keys-file.js";
export * from "./request/index.js";
export { startHttp, type HttpOptions, type RunningHttp } from "./http/server.js";
