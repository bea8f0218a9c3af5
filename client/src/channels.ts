/** Connections to the addresses of a cluster. */
import {
  Client,
  credentials,
  InterceptingCall,
  type ChannelCredentials,
  type Interceptor,
} from "@grpc/grpc-js";

const MAX_MESSAGE_BYTES = 64 << 20;
/** Times between a channel's own tries to connect: within those between calls of a stream. */
const RECONNECT = {
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2000,
};

/** PEM files. */
export interface TlsOptions {
  /** Who signed the server's certificate; absent: the system's authorities. */
  ca?: Buffer;
  /** The client's own certificate and key, where the server asks for one. */
  cert?: Buffer;
  key?: Buffer;
  /** The name in the server's certificate, where it is not the address's host. */
  serverName?: string;
}

function securityOf(tls: TlsOptions | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  if ((tls.cert === undefined) !== (tls.key === undefined))
    throw new RangeError("tls: cert and key come together");
  return credentials.createSsl(tls.ca ?? null, tls.key ?? null, tls.cert ?? null);
}

/** Puts the key on every call of a channel. @throws RangeError, which does not say the key */
function bearerOf(apiKey: string): Interceptor {
  if (!/^[\x21-\x7e]+$/.test(apiKey))
    throw new RangeError("apiKey: must be printable ASCII without spaces");
  return (options, next) =>
    new InterceptingCall(next(options), {
      start(metadata, listener, start) {
        metadata.set("authorization", `Bearer ${apiKey}`);
        start(metadata, listener);
      },
    });
}

/** One an address. @throws RangeError for a key that no header can carry, or half a pair of `cert` and `key` */
export function openChannels(options: {
  addresses: string[];
  tls?: TlsOptions;
  apiKey?: string;
  ownConnections?: boolean;
}): Client[] {
  const { addresses, tls, apiKey, ownConnections = false } = options;
  const security = securityOf(tls);
  const serverName = tls?.serverName;
  const interceptors = apiKey === undefined ? [] : [bearerOf(apiKey)];
  const channel = {
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    ...RECONNECT,
    ...(ownConnections ? { "grpc.use_local_subchannel_pool": 1 } : {}),
    ...(serverName === undefined ? {} : { "grpc.ssl_target_name_override": serverName }),
  };
  return addresses.map((address) => new Client(address, security, { ...channel, interceptors }));
}
