/** TLS of a client from PEM files. */
import { readTls, ServeError, type TlsFiles } from "@tessera/proto";
import type { TlsOptions } from "./channels.js";
import { TesseraError } from "./error.js";

export type { TlsFiles } from "@tessera/proto";

/** @throws TesseraError CONFIGURATION with all that is wrong with the files */
export function readTlsOptions(files: TlsFiles, serverName?: string): TlsOptions {
  const { identity, ca, problems } = readTls(files);
  if (problems.length > 0)
    throw TesseraError.from(new ServeError("CONFIGURATION", problems.join("; ")));
  return {
    ...identity,
    ...(ca === undefined ? {} : { ca }),
    ...(serverName === undefined ? {} : { serverName }),
  };
}
