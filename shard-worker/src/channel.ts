/** gRPC settings of the connections between coordinator and workers and between workers. */

const WINDOW_BYTES = 64 << 20;

/** A frame is at most 1 MiB and a header. */
export const EXCHANGE_CHANNEL = {
  "grpc-node.flow_control_window": WINDOW_BYTES,
  "grpc.max_receive_message_length": (1 << 20) + 4096,
  "grpc.max_send_message_length": (1 << 20) + 4096,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
};

/** Tiles of one Encode fit: 14 tiles of 448 × 448 pixels are 8.4 MB. */
export const SHARD_CHANNEL = {
  "grpc-node.flow_control_window": WINDOW_BYTES,
  "grpc.max_receive_message_length": 256 << 20,
  "grpc.max_send_message_length": 256 << 20,
};
