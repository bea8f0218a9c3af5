/** The file of `--keys`: which keys there are, whose they are, and what their tenants may. */
import { readFileSync, statSync } from "node:fs";
import { ServeError } from "@tessera/proto";
import { LineCounter, parseDocument } from "yaml";
import type { Caller, TenantLimits, TenantPolicy } from "./caller.js";

export interface Key {
  /** Of the key's characters; 32 bytes. */
  sha256: Buffer;
  caller: Caller;
}

const MAX_FILE_BYTES = 1 << 20;
/** Each call compares its key with all of them. */
export const MAX_KEYS = 1024;
const MAX_TENANTS = 1024;
const MAX_ALIASES = 16;
const WEIGHT = { least: 0.01, most: 100, default: 1 };
const MOST = Number.MAX_SAFE_INTEGER;

/** Starts with a letter or digit. */
const TENANT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** In words; undefined for a name that a tenant may have. */
export function tenantNameProblem(name: string): string | undefined {
  if (TENANT_NAME.test(name)) return undefined;
  return `${show(name)}, must be 1 to 64 of A-Z a-z 0-9 . _ - and start with a letter or digit`;
}

const MAX_SHOWN = 80;

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}

type Report = (path: string, problem: string) => void;
type Fields = Record<string, unknown>;

function fieldsOf(
  value: unknown,
  at: { path: string; known: string[]; report: Report },
): Fields | undefined {
  const { path, known, report } = at;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    report(path === "" ? "file" : path, `must be a mapping of ${known.join(", ")}`);
    return undefined;
  }
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue;
    // A longer one may be a key by mistake.
    const said = /^\w{1,24}$/.test(name) ? name : `a field of ${name.length} characters`;
    report(path === "" ? said : `${path}.${said}`, `is not known, only ${known.join(", ")}`);
  }
  return value as Fields;
}

function numberOf(
  value: unknown,
  of: { path: string; least: number; most: number; whole: boolean; report: Report },
): number | undefined {
  const { path, least, most, whole, report } = of;
  if (value === undefined) return undefined;
  const kind = whole ? Number.isSafeInteger : Number.isFinite;
  if (typeof value === "number" && kind(value) && value >= least && value <= most) return value;
  const range = most === MOST ? `at least ${least}` : `${least} to ${most}`;
  report(path, `${show(value)}, must be a ${whole ? "whole " : ""}number, ${range}`);
  return undefined;
}

function limitsOf(value: unknown, path: string, report: Report): TenantLimits {
  if (value === undefined) return {};
  const known = ["requests", "tokens_per_second", "images"];
  const fields = fieldsOf(value, { path, known, report }) ?? {};
  const whole = (name: string, least: number) =>
    numberOf(fields[name], { path: `${path}.${name}`, least, most: MOST, whole: true, report });
  return {
    requests: whole("requests", 1),
    tokensPerSecond: whole("tokens_per_second", 1),
    images: whole("images", 0),
  };
}

function policyOf(value: unknown, path: string, report: Report): TenantPolicy {
  const fields = fieldsOf(value ?? {}, { path, known: ["weight", "limits"], report }) ?? {};
  const { least, most, default: fallback } = WEIGHT;
  const weight = numberOf(fields["weight"], {
    path: `${path}.weight`,
    least,
    most,
    whole: false,
    report,
  });
  return {
    weight: weight ?? fallback,
    limits: limitsOf(fields["limits"], `${path}.limits`, report),
  };
}

/** By tenant; undefined where the file has no section for them. */
function tenantsOf(value: unknown, report: Report): Map<string, TenantPolicy> | undefined {
  if (value === undefined) return undefined;
  const policies = new Map<string, TenantPolicy>();
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    report("tenants", "must be a mapping of names to weight and limits");
    return policies;
  }
  const entries = Object.entries(value);
  if (entries.length > MAX_TENANTS)
    report("tenants", `${entries.length} tenants, limit ${MAX_TENANTS}`);
  for (const [name, of] of entries.slice(0, MAX_TENANTS)) {
    const problem = tenantNameProblem(name);
    if (problem !== undefined) report("tenants", problem);
    policies.set(name, policyOf(of, `tenants.${name}`, report));
  }
  return policies;
}

/** What was given is not said: it may be a key by mistake. */
function digestOf(value: unknown, path: string, report: Report): Buffer | undefined {
  if (typeof value === "string" && /^[0-9a-f]{64}$/i.test(value)) return Buffer.from(value, "hex");
  if (value === undefined) report(path, "is missing");
  else if (typeof value !== "string") report(path, "is no text, put it in quotes");
  else report(path, `has ${value.length} characters, must be the 64 hex digits of a key's SHA-256`);
  return undefined;
}

function keyOf(
  value: unknown,
  path: string,
  of: { tenants: Map<string, TenantPolicy> | undefined; report: Report },
): Key | undefined {
  const { tenants, report } = of;
  const fields = fieldsOf(value, { path, known: ["sha256", "tenant", "admin"], report });
  if (fields === undefined) return undefined;
  const { tenant, admin = false } = fields;
  const sha256 = digestOf(fields["sha256"], `${path}.sha256`, report);
  if (typeof admin !== "boolean") report(`${path}.admin`, `${show(admin)}, must be true or false`);
  if (typeof tenant !== "string") {
    const problem = tenant === undefined ? "is missing" : `${show(tenant)}, must be a text`;
    report(`${path}.tenant`, problem);
    return undefined;
  }
  const problem = tenantNameProblem(tenant);
  if (problem !== undefined) report(`${path}.tenant`, problem);
  else if (tenants?.has(tenant) === false)
    report(`${path}.tenant`, `${show(tenant)} is not among tenants`);
  const policy = tenants?.get(tenant) ?? { weight: WEIGHT.default, limits: {} };
  return sha256 && { sha256, caller: { tenant, admin: admin === true, policy } };
}

function keysOf(
  value: unknown,
  of: { tenants: Map<string, TenantPolicy> | undefined; report: Report },
): Key[] {
  const { report } = of;
  if (!Array.isArray(value) || value.length === 0) {
    report("keys", value === undefined ? "is missing" : "must be a list of one key or more");
    return [];
  }
  if (value.length > MAX_KEYS) report("keys", `${value.length} keys, limit ${MAX_KEYS}`);
  const places = new Map<string, string>();
  return value.slice(0, MAX_KEYS).flatMap((entry: unknown, i) => {
    const path = `keys[${i}]`;
    const key = keyOf(entry, path, of);
    if (key === undefined) return [];
    const digest = key.sha256.toString("hex");
    const before = places.get(digest);
    if (before !== undefined) report(`${path}.sha256`, `is that of ${before}`);
    places.set(digest, path);
    return [key];
  });
}

function parseYaml(text: string, report: (problem: string) => void): unknown {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, prettyErrors: false, stringKeys: true });
  for (const { pos, message } of document.errors) {
    const { line, col } = lineCounter.linePos(pos[0]);
    report(`line ${line}, column ${col}: ${message}`);
  }
  if (document.errors.length > 0) return undefined;
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    report(ServeError.from(error).message);
    return undefined;
  }
}

/** `file` is for messages. @throws ServeError CONFIGURATION with every problem, no value of a digest among them */
export function parseKeys(text: string, file: string): Key[] {
  const problems: string[] = [];
  const report: Report = (path, problem) => problems.push(`keys: ${file}: ${path}: ${problem}`);
  const value = parseYaml(text, (problem) => problems.push(`keys: ${file}: ${problem}`));
  let keys: Key[] = [];
  if (problems.length === 0) {
    const fields = fieldsOf(value, { path: "", known: ["tenants", "keys"], report });
    const tenants = fields && tenantsOf(fields["tenants"], report);
    if (fields !== undefined) keys = keysOf(fields["keys"], { tenants, report });
  }
  if (problems.length > 0) throw new ServeError("CONFIGURATION", problems.join("; "));
  return keys;
}

/** @throws ServeError CONFIGURATION */
export function readKeys(file: string): Key[] {
  let text: string;
  try {
    const { size } = statSync(file);
    if (size > MAX_FILE_BYTES)
      throw new ServeError("CONFIGURATION", `it has ${size} bytes, limit ${MAX_FILE_BYTES}`);
    text = readFileSync(file, "utf8");
  } catch (error) {
    const { message } = ServeError.from(error);
    throw new ServeError("CONFIGURATION", `keys: ${file} is not read: ${message}`, {
      cause: error,
    });
  }
  return parseKeys(text, file);
}
