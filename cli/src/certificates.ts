/** A certificate authority and what it signs, for tests and trials. */
import { webcrypto } from "node:crypto";
import { access, mkdir, writeFile } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
// The library's containers need it before they are loaded.
import "reflect-metadata";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
  type Extension,
} from "@peculiar/x509";

export const DEFAULT_HOSTS = ["localhost", "127.0.0.1", "::1"];
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 86_400_000;
/** Clocks of other machines may be behind. */
const CLOCK_SLACK_MS = 5 * 60_000;

export interface CertificatePlan {
  /** DNS names and IP addresses of the server's certificate. */
  hosts: string[];
  days: number;
  /** When server's and client's begin, default now; the authority is valid then and now. */
  fromMs?: number;
}

type Keys = webcrypto.CryptoKeyPair;
interface Signer {
  name: string;
  keys: Keys;
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key)).toString("base64");
  const lines = der.match(/.{1,64}/g) ?? [];
  return ["-----BEGIN PRIVATE KEY-----", ...lines, "-----END PRIVATE KEY-----", ""].join("\n");
}

function newKeys(): Promise<Keys> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}

/** Signed by `signer`, or by itself without one. */
async function certify(
  subject: Signer,
  extensions: Extension[],
  of: { signer: Signer; plan: CertificatePlan },
): Promise<string> {
  const { signer, plan } = of;
  const nowMs = Date.now();
  const fromMs = plan.fromMs ?? nowMs;
  const lastFromMs = signer === subject ? Math.max(nowMs, fromMs) : fromMs;
  const certificate = await X509CertificateGenerator.create({
    subject: `CN=${subject.name}`,
    issuer: `CN=${signer.name}`,
    notBefore: new Date(fromMs - CLOCK_SLACK_MS),
    notAfter: new Date(lastFromMs + plan.days * DAY_MS),
    publicKey: subject.keys.publicKey,
    signingKey: signer.keys.privateKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      ...extensions,
      await SubjectKeyIdentifierExtension.create(subject.keys.publicKey),
      await AuthorityKeyIdentifierExtension.create(signer.keys.publicKey),
    ],
  });
  return `${certificate.toString("pem")}\n`;
}

/** Coordinator and workers are servers and each other's clients. */
const BOTH = [ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth];

function leafExtensions(hosts: string[], usages: ExtendedKeyUsage[]): Extension[] {
  const names = hosts.map((value) => ({
    type: isIP(value) === 0 ? ("dns" as const) : ("ip" as const),
    value,
  }));
  return [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension(usages),
    ...(names.length === 0 ? [] : [new SubjectAlternativeNameExtension(names)]),
  ];
}

/** File name → PEM. */
export async function makeCertificates(plan: CertificatePlan): Promise<Record<string, string>> {
  cryptoProvider.set(webcrypto);
  const [authority, server, client] = await Promise.all(
    ["Tessera CA", "Tessera server", "Tessera client"].map(async (name) => ({
      name,
      keys: await newKeys(),
    })),
  );
  if (authority === undefined || server === undefined || client === undefined)
    throw new RangeError("three pairs of keys are made");
  const of = { signer: authority, plan };
  const signs = KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign;
  const authorityExtensions = [
    new BasicConstraintsExtension(true, 0, true),
    new KeyUsagesExtension(signs, true),
  ];
  return {
    "ca.pem": await certify(authority, authorityExtensions, of),
    "ca.key": await pemOf(authority.keys.privateKey),
    "server.pem": await certify(server, leafExtensions(plan.hosts, BOTH), of),
    "server.key": await pemOf(server.keys.privateKey),
    "client.pem": await certify(client, leafExtensions([], [ExtendedKeyUsage.clientAuth]), of),
    "client.key": await pemOf(client.keys.privateKey),
  };
}

const KEY_MODE = 0o600;
const PEM_MODE = 0o644;

/** Paths by file name. @throws Error when one of the files is there already; none is written then */
export async function writeCertificates(
  dir: string,
  plan: CertificatePlan,
): Promise<Record<string, string>> {
  const files = await makeCertificates(plan);
  await mkdir(dir, { recursive: true });
  const paths = Object.fromEntries(Object.keys(files).map((name) => [name, join(dir, name)]));
  const there: string[] = [];
  for (const path of Object.values(paths)) {
    const exists = await access(path).then(
      () => true,
      () => false,
    );
    if (exists) there.push(path);
  }
  if (there.length > 0)
    throw new Error(`certs: ${there.join(", ")}: there already, not overwritten`);
  for (const [name, pem] of Object.entries(files)) {
    const mode = name.endsWith(".key") ? KEY_MODE : PEM_MODE;
    await writeFile(join(dir, name), pem, { flag: "wx", mode });
  }
  return paths;
}
