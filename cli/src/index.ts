export { startCluster, type Cluster, type ClusterSettings } from "./supervisor.js";
export { writeCertificates, type CertificatePlan } from "./certificates.js";
export type { ServerSecurityFlags } from "./commands/security-flags.js";
export type { PlacementFlags, Transport } from "./commands/options.js";
export { atLeast, describeFacts, type Fact } from "./doctor/facts.js";
export { examine, type ExamineOptions } from "./doctor/examine.js";
export { createProgram } from "./program.js";
