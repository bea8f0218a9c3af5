/** host:port as users write it. */
import { ServeError } from "./errors.js";

export interface Address {
  host: string;
  port: number;
}

/** As the operating system knows it: an IPv6 address stands in brackets only beside a port. */
export function bareHost(host: string): string {
  return /^\[(.*)\]$/.exec(host)?.[1] ?? host;
}

/** @throws ServeError CONFIGURATION naming `field`. */
export function parseAddress(text: string, field: string): Address {
  const at = text.lastIndexOf(":");
  const digits = text.slice(at + 1);
  const port = Number(digits);
  if (at < 1 || !/^\d{1,5}$/.test(digits) || port > 65535)
    throw new ServeError("CONFIGURATION", `${field}: ${JSON.stringify(text)} is no host:port`);
  return { host: text.slice(0, at), port };
}
