export { startCluster, type Cluster, type ClusterSettings } from "./supervisor.js";
export type { PlacementFlags } from "./commands/options.js";
