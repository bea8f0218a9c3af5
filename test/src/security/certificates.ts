/** Certificates of a test, made by the command's own code. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { writeCertificates, type CertificatePlan } from "@tessera/cli";
import type { PeerTls } from "@tessera/proto";

export const DAY_MS = 86_400_000;

export interface CertificateSet {
  /** As options of coordinator and worker. */
  server: { cert: string; key: string; ca: string };
  ca: Buffer;
  /** Of the server's or the client's certificate. */
  pems(name: "server" | "client"): PeerTls;
}

/** An authority of its own, and what it signed; gone when the test file ends. */
export async function certificates(plan: Partial<CertificatePlan> = {}): Promise<CertificateSet> {
  const dir = mkdtempSync(join(tmpdir(), "tessera-tls-"));
  after(() => rmSync(dir, { recursive: true }));
  await writeCertificates(dir, { hosts: ["127.0.0.1"], days: 2, ...plan });
  const at = (name: string) => join(dir, name);
  const pem = (name: string) => readFileSync(at(name));
  return {
    server: { cert: at("server.pem"), key: at("server.key"), ca: at("ca.pem") },
    ca: pem("ca.pem"),
    pems: (name) => ({ cert: pem(`${name}.pem`), key: pem(`${name}.key`), ca: pem("ca.pem") }),
  };
}
