/** Who may call a coordinator, and the certificates of its connections; read and checked once, at start. */
import {
  peerTlsOf,
  readTls,
  ServeError,
  type PeerTls,
  type TlsFiles,
  type TlsIdentity,
} from "@tessera/proto";
import { OPEN_ACCESS, type Access } from "./access.js";
import { KeyAccess } from "./key-access.js";

interface Says {
  info(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

export interface SecurityOptions {
  /** YAML of keys and tenants; absent: all callers are one tenant. */
  keys?: string | undefined;
  /** PEM files: of the fronts, and with `ca` of the connections to workers. */
  tls?: TlsFiles | undefined;
  /** Addresses beyond loopback go without keys and certificates. */
  insecureBind?: boolean | undefined;
}

export interface Security {
  access: Access;
  /** Reads the file of keys again; one with problems leaves the keys what they were. Absent where there is none. */
  reloadKeys: ((log: Says) => void) | undefined;
  /** Of the fronts. */
  front: TlsIdentity | undefined;
  /** Of the connections to workers. */
  peers: PeerTls | undefined;
}

function readAccess(keys: string | undefined, problems: string[]): KeyAccess | undefined {
  if (keys === undefined) return undefined;
  try {
    return KeyAccess.open(keys);
  } catch (error) {
    problems.push(ServeError.from(error).message);
    return undefined;
  }
}

export function readSecurity({ keys, tls = {} }: SecurityOptions): Security & {
  problems: string[];
} {
  const read = readTls(tls);
  const problems = [...read.problems];
  if (tls.ca !== undefined && tls.cert === undefined && tls.key === undefined)
    problems.push("tls-ca: needs tls-cert and tls-key, workers ask for a certificate");
  const access = readAccess(keys, problems);
  const reloadKeys = (from: KeyAccess) => (log: Says) => {
    try {
      from.reload();
      log.info({ keys: from.keyCount }, "keys read again");
    } catch (error) {
      log.error({ why: ServeError.from(error).message }, "keys not read again");
    }
  };
  return {
    access: access ?? OPEN_ACCESS,
    reloadKeys: access && reloadKeys(access),
    front: read.identity,
    peers: peerTlsOf(read),
    problems,
  };
}
