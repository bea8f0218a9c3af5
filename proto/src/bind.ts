/** Which addresses a server may bind, and say to others, without protection. */
import { BlockList, isIP } from "node:net";
import { bareHost } from "./address.js";

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** Of a host as it stands in host:port; names other than localhost are taken to lead anywhere. */
export function isLoopback(host: string): boolean {
  const bare = bareHost(host);
  const family = isIP(bare);
  if (family === 0) return bare.toLowerCase() === "localhost";
  return LOOPBACK.check(bare, family === 4 ? "ipv4" : "ipv6");
}

export interface Binding {
  /** The setting that names the host, as `listen`. */
  field: string;
  host: string;
  /** What stands guard there beyond loopback: names of settings, and whether each is given. */
  guards: Record<string, boolean>;
  /** The user said that it shall be so. */
  insecureBind: boolean | undefined;
}

/** Of the servers that users call. */
export function frontGuards(given: { keys: boolean; tls: boolean }): Record<string, boolean> {
  return { keys: given.keys, "tls-cert and tls-key": given.tls };
}

/** Of what coordinator and workers say to each other. */
export function peerGuards(given: { mutualTls: boolean }): Record<string, boolean> {
  return { "tls-cert, tls-key and tls-ca": given.mutualTls };
}

/** In words, one for each binding beyond loopback that lacks a guard. */
export function bindProblems(bindings: readonly Binding[]): string[] {
  return bindings.flatMap(({ field, host, guards, insecureBind }) => {
    if (insecureBind === true || isLoopback(host)) return [];
    const missing = Object.entries(guards)
      .filter(([, given]) => !given)
      .map(([name]) => name);
    if (missing.length === 0) return [];
    return [
      `${field}: ${host} is beyond loopback and needs ${missing.join(" and ")}; ` +
        "insecure-bind goes without",
    ];
  });
}
