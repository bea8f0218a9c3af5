/** Flags of keys and certificates: those of servers, and those of commands that talk to one. */
import { Option, type Command } from "commander";
import { readTlsOptions, type ClientOptions } from "@tessera/client";

export interface TlsFlags {
  tlsCert?: string;
  tlsKey?: string;
  tlsCa?: string;
  insecureBind?: boolean;
}

export interface ServerSecurityFlags extends TlsFlags {
  keys?: string;
}

export interface ClientSecurityFlags {
  apiKey?: string;
  tls?: boolean;
  tlsCa?: string;
  tlsCert?: string;
  tlsKey?: string;
  tlsServerName?: string;
}

/** Of a worker, whose callers are peers. */
export function addPeerTls(command: Command): Command {
  return command
    .option("--tls-cert <file>", "PEM certificate of this process, for its host")
    .option("--tls-key <file>", "PEM private key of it")
    .option("--tls-ca <file>", "PEM: who signed the certificates of coordinator and workers")
    .option("--insecure-bind", "beyond loopback without keys and certificates");
}

/** Of what has a front for users. */
export function addServerSecurity(command: Command): Command {
  return addPeerTls(command).option("--keys <file>", "YAML of API keys and tenants");
}

/** As startCoordinator and startWorker take them. */
export function securityOptions(flags: ServerSecurityFlags) {
  return {
    keys: flags.keys,
    tls: { cert: flags.tlsCert, key: flags.tlsKey, ca: flags.tlsCa },
    insecureBind: flags.insecureBind,
  };
}

/** The same flags as arguments of a child process. */
export function peerTlsArgs(flags: TlsFlags): string[] {
  const pairs: [string, string | undefined][] = [
    ["--tls-cert", flags.tlsCert],
    ["--tls-key", flags.tlsKey],
    ["--tls-ca", flags.tlsCa],
  ];
  const insecure = flags.insecureBind === true ? ["--insecure-bind"] : [];
  return [
    ...pairs.flatMap(([name, value]) => (value === undefined ? [] : [name, value])),
    ...insecure,
  ];
}

export function serverSecurityArgs(flags: ServerSecurityFlags): string[] {
  return [...peerTlsArgs(flags), ...(flags.keys === undefined ? [] : ["--keys", flags.keys])];
}

const CLIENT_TLS = ["tls", "tlsCa", "tlsCert", "tlsKey", "tlsServerName"] as const;

export function addClientSecurity(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--api-key <key>",
        "of --server; others of this machine see what is on a command line",
      ).env("TESSERA_API_KEY"),
    )
    .option("--tls", "of --server: TLS with the system's authorities")
    .option("--tls-ca <file>", "TLS: PEM of who signed the server's certificate")
    .option("--tls-cert <file>", "TLS: own PEM certificate, where the server asks for one")
    .option("--tls-key <file>", "TLS: PEM private key of it")
    .option("--tls-server-name <name>", "TLS: the name in the server's certificate");
}

/** Of a client of `--server`; a cluster of the command's own needs none. @throws TesseraError CONFIGURATION */
export function clientSecurity(
  flags: ClientSecurityFlags & { server?: string },
): Pick<ClientOptions, "apiKey" | "tls"> {
  const said = CLIENT_TLS.filter((name) => flags[name] !== undefined);
  if (flags.server === undefined) {
    if (said.length > 0) throw new Error("tls: is of --server, which is not given");
    return {};
  }
  const files = { ca: flags.tlsCa, cert: flags.tlsCert, key: flags.tlsKey };
  return {
    ...(flags.apiKey === undefined ? {} : { apiKey: flags.apiKey }),
    ...(said.length === 0 ? {} : { tls: readTlsOptions(files, flags.tlsServerName) }),
  };
}
