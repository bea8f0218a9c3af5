/** Bounds of a load. */

/** Requests under way at once, and so sockets. What is due beyond it is not sent, and counted as `client_limit`. */
export const MAX_IN_FLIGHT = 4096;
/** Of one load: each leaves a record. */
export const MAX_REQUESTS = 250_000;
/** Inter-token gaps of one load that are kept; beyond it a uniform sample of them, and no request's own any more. */
export const MAX_GAPS = 2_000_000;
/** Points of a sweep. */
export const MAX_POINTS = 64;
/** Different pictures of a workload. */
export const MAX_PICTURES = 1024;
export const MAX_CONCURRENCY = MAX_IN_FLIGHT;
/** Of a prompt or an answer. */
export const MAX_LENGTH = 1 << 20;
