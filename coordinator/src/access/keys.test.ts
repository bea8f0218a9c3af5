/** The file of keys, and callers by it. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ServeError } from "@tessera/proto";
import { KeyAccess, MAX_AUTHORIZATION } from "./key-access.js";
import { MAX_KEYS, parseKeys, readKeys } from "./keys-file.js";

const digestOf = (key: string) => createHash("sha256").update(key).digest("hex");
const A = digestOf("key-a");
const B = digestOf("key-b");

const GOOD = `
tenants:
  acme: { weight: 2.5, limits: { requests: 8, tokens_per_second: 1000, images: 0 } }
  operations:
keys:
  - { sha256: "${A}", tenant: acme }
  - { sha256: "${B.toUpperCase()}", tenant: operations, admin: true }
`;

test("keys: tenants with weight and limits, and keys of them", () => {
  const keys = parseKeys(GOOD, "keys.yaml");
  assert.deepEqual(
    keys.map(({ sha256 }) => sha256.toString("hex")),
    [A, B],
  );
  assert.deepEqual(keys[0]?.caller, {
    tenant: "acme",
    admin: false,
    policy: { weight: 2.5, limits: { requests: 8, tokensPerSecond: 1000, images: 0 } },
  });
  const none = { requests: undefined, tokensPerSecond: undefined, images: undefined };
  assert.equal(keys[1]?.caller.admin, true);
  assert.deepEqual({ ...none, ...keys[1].caller.policy.limits }, none);
  assert.equal(keys[1].caller.policy.weight, 1);
});

test("keys: without tenants each key names its own", () => {
  const [key] = parseKeys(`keys: [{ sha256: "${A}", tenant: x }]`, "f");
  assert.deepEqual(key?.caller, { tenant: "x", admin: false, policy: { weight: 1, limits: {} } });
});

const entry = (fields: string) => `keys: [{ ${fields} }]`;
const rows: [string, string, RegExp][] = [
  ["no mapping", "7", /f: file: must be a mapping of tenants, keys/],
  ["nothing", "", /f: file: must be a mapping/],
  ["no keys", "tenants: {}", /f: keys: is missing/],
  ["an empty list", "keys: []", /keys: must be a list of one key or more/],
  ["broken YAML", "keys: [", /f: line 1, column \d+: /],
  ["a field twice", "keys: []\nkeys: []", /f: line 2, column 1: .*unique/],
  ["an unknown section", "key: []", /f: key: is not known, only tenants, keys/],
  [
    "an unknown field",
    entry(`sha256: "${A}", tenant: x, role: y`),
    /keys\[0\]\.role: is not known/,
  ],
  ["a key as text", "keys: [tessera-secret]", /keys\[0\]: must be a mapping/],
  ["no digest", entry("tenant: x"), /keys\[0\]\.sha256: is missing/],
  [
    "a digest too short",
    entry('sha256: "abc", tenant: x'),
    /sha256: has 3 characters, must be the 64/,
  ],
  [
    "a digest that is a number",
    entry(`sha256: ${"1".repeat(64)}, tenant: x`),
    /sha256: is no text/,
  ],
  ["no tenant", entry(`sha256: "${A}"`), /keys\[0\]\.tenant: is missing/],
  ["a tenant that is a number", entry(`sha256: "${A}", tenant: 7`), /tenant: 7, must be a text/],
  [
    "a tenant with a space",
    entry(`sha256: "${A}", tenant: "a b"`),
    /tenant: "a b", must be 1 to 64/,
  ],
  [
    "admin as text",
    entry(`sha256: "${A}", tenant: x, admin: "yes"`),
    /admin: "yes", must be true or/,
  ],
  [
    "a tenant that is not listed",
    `tenants: { y: {} }\n${entry(`sha256: "${A}", tenant: x`)}`,
    /keys\[0\]\.tenant: "x" is not among tenants/,
  ],
  [
    "a digest twice",
    `keys: [{ sha256: "${A}", tenant: x }, { sha256: "${A.toUpperCase()}", tenant: y }]`,
    /keys\[1\]\.sha256: is that of keys\[0\]/,
  ],
  ["too many keys", `keys: [${"{},".repeat(MAX_KEYS + 1)}]`, /1025 keys, limit 1024/],
  ["tenants as a list", "tenants: []\nkeys: []", /tenants: must be a mapping of names/],
  [
    "a weight of 0",
    "tenants: { y: { weight: 0 } }\nkeys: []",
    /y\.weight: 0, must be a number, 0\.01/,
  ],
  ["a weight that is none", "tenants: { y: { weight: .nan } }\nkeys: []", /y\.weight: null, must/],
  [
    "half a request",
    "tenants: { y: { limits: { requests: 0.5 } } }\nkeys: []",
    /tenants\.y\.limits\.requests: 0\.5, must be a whole number, at least 1/,
  ],
  [
    "an unknown limit",
    "tenants: { y: { limits: { tokens: 5 } } }\nkeys: []",
    /tenants\.y\.limits\.tokens: is not known, only requests, tokens_per_second, images/,
  ],
];
for (const [name, text, message] of rows)
  test(`keys: ${name} is refused`, () => {
    assert.throws(() => parseKeys(text, "f"), { code: "CONFIGURATION", message });
  });

test("keys: all problems are said at once, and no value that may be a key", () => {
  const text = `
tenants: { y: { weight: 1000 } }
keys:
  - { sha256: tessera-secret, tenant: y }
  - { tessera-secret-of-this-file: y }
  - { sha256: "${A}", tenant: z }`;
  assert.throws(
    () => parseKeys(text, "f"),
    ({ message }: Error) => {
      assert.match(message, /weight: 1000/);
      assert.match(
        message,
        /keys\[0\]\.sha256.*keys\[1\]\.a field of 27 characters.*keys\[2\]\.tenant/,
      );
      assert.doesNotMatch(message, /secret/);
      return true;
    },
  );
});

test("keys: a file that is not there is named", () => {
  assert.throws(() => readKeys("/nowhere/keys.yaml"), {
    code: "CONFIGURATION",
    message: /keys: \/nowhere\/keys\.yaml is not read: ENOENT/,
  });
});

const folder = mkdtempSync(join(tmpdir(), "tessera-keys-"));
after(() => rmSync(folder, { recursive: true }));
function open(text: string): { access: KeyAccess; file: string } {
  const file = join(folder, "keys.yaml");
  writeFileSync(file, text);
  return { access: KeyAccess.open(file), file };
}

test("KeyAccess: a key is its tenant's, whatever the case of Bearer", () => {
  const { access } = open(GOOD);
  assert.equal(access.authenticate("Bearer key-a").tenant, "acme");
  assert.equal(access.authenticate("bEARER  key-b").tenant, "operations");
});

const refused: [string, string | undefined, RegExp][] = [
  ["none", undefined, /is missing/],
  ["an empty one", "", /is missing/],
  ["another scheme", "Basic key-a", /must be Bearer and a key/],
  ["the key alone", "key-a", /must be Bearer and a key/],
  ["no key", "Bearer ", /must be Bearer and a key/],
  ["two keys", "Bearer key-a key-b", /must be Bearer and a key/],
  ["an unknown key", "Bearer key-c", /the key is not known/],
  ["a digest in the place of a key", `Bearer ${A}`, /the key is not known/],
  ["a long one", `Bearer ${"k".repeat(MAX_AUTHORIZATION)}`, /has 519 characters, limit 512/],
];
for (const [name, authorization, description] of refused)
  test(`KeyAccess: ${name} is refused, and the header is not said`, () => {
    const { access } = open(GOOD);
    assert.throws(
      () => access.authenticate(authorization),
      (error: unknown) => {
        assert.ok(error instanceof ServeError);
        assert.equal(error.code, "UNAUTHENTICATED");
        assert.equal(error.violations[0]?.field, "authorization");
        assert.match(error.message, description);
        assert.doesNotMatch(error.message, /key-[abc]|kkk|[0-9a-f]{64}/);
        return true;
      },
    );
  });

test("KeyAccess: a file read again brings new keys and ends old ones; a bad one changes nothing", () => {
  const { access, file } = open(GOOD);
  writeFileSync(file, entry(`sha256: "${digestOf("key-new")}", tenant: acme`));
  access.reload();
  assert.equal(access.authenticate("Bearer key-new").tenant, "acme");
  assert.throws(() => access.authenticate("Bearer key-a"), { code: "UNAUTHENTICATED" });
  writeFileSync(file, "keys: [");
  assert.throws(() => access.reload(), { code: "CONFIGURATION" });
  assert.equal(access.authenticate("Bearer key-new").tenant, "acme");
});
