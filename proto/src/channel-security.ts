/** gRPC credentials from certificates; without certificates plain text. */
import { credentials, ServerCredentials, type ChannelCredentials } from "@grpc/grpc-js";
import type { PeerTls, TlsIdentity } from "./tls-files.js";

export type { PeerTls } from "./tls-files.js";

/** Users are known by their keys, not by certificates. */
export function frontCredentials(tls: TlsIdentity | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  return ServerCredentials.createSsl(null, [{ private_key: tls.key, cert_chain: tls.cert }]);
}

/** Every peer shows a certificate that `ca` signed. */
export function peerServerCredentials(tls: PeerTls | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const { ca, key, cert } = tls;
  return ServerCredentials.createSsl(ca, [{ private_key: key, cert_chain: cert }], true);
}

/** The server's certificate is signed by `ca`, and for the host that is dialled. */
export function peerChannelCredentials(tls: PeerTls | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  return credentials.createSsl(tls.ca, tls.key, tls.cert);
}
