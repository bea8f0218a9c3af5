/** Certificates and keys as files: read and checked once, at start. */
import { createPrivateKey, X509Certificate, type KeyObject } from "node:crypto";
import { readFileSync, statSync } from "node:fs";

/** Paths of PEM files. */
export interface TlsFiles {
  /** Own certificate, its intermediates after it. */
  cert?: string | undefined;
  /** The private key of `cert`, without a passphrase. */
  key?: string | undefined;
  /** Who signs the certificates of the other side. */
  ca?: string | undefined;
}

export interface TlsIdentity {
  cert: Buffer;
  key: Buffer;
}

/** For mutual TLS. */
export interface PeerTls extends TlsIdentity {
  ca: Buffer;
}

export interface ReadTls {
  identity: TlsIdentity | undefined;
  ca: Buffer | undefined;
  problems: string[];
}

const MAX_FILE_BYTES = 1 << 20;
const MAX_CERTIFICATES = 512;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

const READ_ERRORS: Record<string, string> = {
  ENOENT: "there is no such file",
  EACCES: "may not be read",
  EISDIR: "is a folder",
};

function said(error: unknown): string {
  const { code = "", message } = error as NodeJS.ErrnoException;
  return READ_ERRORS[code] ?? message;
}

/** @throws Error in words that follow the file's name */
function readPem(path: string): Buffer {
  try {
    const { size } = statSync(path);
    if (size > MAX_FILE_BYTES) throw new Error(`has ${size} bytes, limit ${MAX_FILE_BYTES}`);
    return readFileSync(path);
  } catch (error) {
    throw new Error(said(error), { cause: error });
  }
}

/** @throws Error in words that follow the file's name */
function certificatesIn(pem: Buffer): [X509Certificate, ...X509Certificate[]] {
  const texts = pem.toString("latin1").match(CERTIFICATE) ?? [];
  if (texts.length > MAX_CERTIFICATES)
    throw new Error(`holds ${texts.length} certificates, limit ${MAX_CERTIFICATES}`);
  const [first, ...others] = texts.map((text) => {
    try {
      return new X509Certificate(text);
    } catch (error) {
      throw new Error("holds a damaged certificate", { cause: error });
    }
  });
  if (first === undefined) throw new Error("holds no PEM certificate");
  return [first, ...others];
}

/** @throws Error in words that follow the file's name */
function privateKeyIn(pem: Buffer): KeyObject {
  if (/BEGIN ENCRYPTED|Proc-Type: 4,ENCRYPTED/.test(pem.toString("latin1")))
    throw new Error("is encrypted, give a key without a passphrase");
  try {
    return createPrivateKey(pem);
  } catch (error) {
    throw new Error("holds no PEM private key", { cause: error });
  }
}

/** In words; undefined while it is valid. */
function outOfTime({ validFrom, validTo }: X509Certificate, nowMs: number): string | undefined {
  if (nowMs > Date.parse(validTo)) return `expired on ${new Date(validTo).toISOString()}`;
  if (nowMs < Date.parse(validFrom))
    return `is valid from ${new Date(validFrom).toISOString()} only`;
  return undefined;
}

/** Reads what is given; problems are named `tls-cert`, `tls-key` and `tls-ca`, all at once. */
export function readTls(files: TlsFiles, nowMs: number = Date.now()): ReadTls {
  const problems: string[] = [];
  const attempt = <T>(name: string, path: string | undefined, work: (pem: Buffer) => T) => {
    if (path === undefined) return undefined;
    try {
      const pem = readPem(path);
      return { pem, parsed: work(pem) };
    } catch (error) {
      problems.push(`${name}: ${path} ${said(error)}`);
      return undefined;
    }
  };
  const inTime = (pem: Buffer): X509Certificate => {
    const [own] = certificatesIn(pem);
    const problem = outOfTime(own, nowMs);
    if (problem !== undefined) throw new Error(problem);
    return own;
  };
  const anyInTime = (pem: Buffer) => {
    const outs = certificatesIn(pem).map((authority) => outOfTime(authority, nowMs));
    // A bundle may hold old ones beside those that count.
    if (outs.every((out) => out !== undefined)) throw new Error(outs[0]);
  };
  const cert = attempt("tls-cert", files.cert, inTime);
  const key = attempt("tls-key", files.key, privateKeyIn);
  const ca = attempt("tls-ca", files.ca, anyInTime);
  if ((files.cert === undefined) !== (files.key === undefined))
    problems.push("tls-cert and tls-key come together");
  if (cert !== undefined && key !== undefined && !cert.parsed.checkPrivateKey(key.parsed))
    problems.push(`tls-key: ${files.key} is not the key of ${files.cert}`);
  const identity =
    cert === undefined || key === undefined ? undefined : { cert: cert.pem, key: key.pem };
  return { identity, ca: ca?.pem, problems };
}

/** What coordinator and workers need of each other; undefined without `ca`. */
export function peerTlsOf({ identity, ca }: ReadTls): PeerTls | undefined {
  return identity === undefined || ca === undefined ? undefined : { ...identity, ca };
}
