/** Which NATS is meant, and whether it will do. */
import { ServeError } from "./errors.js";

const LEAST_VERSION = [2, 9] as const;

export interface NatsServers {
  options: { servers: string[]; user?: string; pass?: string; token?: string };
  /** Without secrets. */
  shown: string;
}

function parseServer(text: string): URL {
  const full = text.includes("://") ? text : `nats://${text}`;
  const url = URL.canParse(full) ? new URL(full) : undefined;
  const good = url?.protocol === "nats:" && url.hostname !== "" && url.pathname.length <= 1;
  if (url === undefined || !good)
    throw new ServeError("CONFIGURATION", "nats: must be nats://[user:password@]host[:port]");
  return url;
}

/** A user without a password is a token. @throws ServeError CONFIGURATION, without the text: it may hold a secret */
export function parseNatsUrl(text: string): NatsServers {
  const [first, ...others] = text.split(",");
  const url = parseServer(first ?? "");
  const servers = [url, ...others.map(parseServer)].map(({ host }) => host);
  const shown = servers.map((server) => `nats://${server}`).join(",");
  const [user, pass] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
  if (user === "") return { options: { servers }, shown };
  return { options: { servers, ...(pass === "" ? { token: user } : { user, pass }) }, shown };
}

/** What makes this server no use, in words; undefined when nothing does. */
export function serverProblem(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [leastMajor, leastMinor] = LEAST_VERSION;
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) return undefined;
  return `nats-server is version ${version}, must be ${LEAST_VERSION.join(".")} or newer`;
}
