/** The ways of collectives between ranks. */

/** `auto`: shared memory where a pair proves that it has it, else gRPC; `shm`: nothing else; `grpc`: never memory. */
export const TRANSPORTS = ["auto", "shm", "grpc"] as const;
export type Transport = (typeof TRANSPORTS)[number];

/** Where shared files are made; a tmpfs. */
export const SHARED_DIR = "/dev/shm";
