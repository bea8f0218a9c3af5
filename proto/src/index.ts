export * from "./address.js";
export * from "./bind.js";
export {
  frontCredentials,
  peerChannelCredentials,
  peerServerCredentials,
} from "./channel-security.js";
export * from "./errors.js";
export * from "./exchange-codec.js";
export * from "./grpc.js";
export * from "./probes.js";
export * from "./progress.js";
export * from "./reflection.js";
export * from "./tls-files.js";
