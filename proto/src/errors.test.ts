import assert from "node:assert/strict";
import { test } from "node:test";
import { Metadata, status } from "@grpc/grpc-js";
import fc from "fast-check";
import {
  durationToMillis,
  GRPC_STATUS,
  millisToDuration,
  ServeError,
  type ServeErrorCode,
} from "./errors.js";
import { ErrorCode } from "./gen/tessera/v1/errors_pb.js";

const codes = Object.keys(GRPC_STATUS) as ServeErrorCode[];
const text = fc.string({ unit: "grapheme", maxLength: 60 });
/** Without `__proto__`: protobuf's runtime drops that key of a map, so that no message sets a prototype. */
const key = text.filter((name) => name !== "__proto__");
const errors = fc
  .record({
    code: fc.constantFrom(...codes),
    message: text,
    violations: fc.array(fc.record({ field: text, description: text }), { maxLength: 4 }),
    metadata: fc.dictionary(key, text, { maxKeys: 3 }),
    retryDelayMs: fc.option(fc.integer({ min: 0, max: 1e9 }), { nil: undefined }),
    quota: fc.option(text, { nil: undefined }),
  })
  .map(({ code, message, violations, metadata, retryDelayMs, quota }) => ({
    error: new ServeError(code, message, {
      violations,
      metadata,
      ...(retryDelayMs === undefined ? {} : { retryDelayMs }),
      ...(quota === undefined ? {} : { quota }),
    }),
  }));

test("the closed list is the proto's, and every code has a status that is no success", () => {
  const declared = Object.keys(ErrorCode).filter(
    (key) => Number.isNaN(Number(key)) && key !== "UNSPECIFIED",
  );
  assert.deepEqual([...codes].sort(), declared.sort());
  for (const code of codes) assert.notEqual(GRPC_STATUS[code], status.OK, code);
});

test("ServeError: over the wire and back every fact is there", () => {
  fc.assert(
    fc.property(errors, ({ error }) => {
      const sent = error.toStatus();
      assert.equal(sent.code, GRPC_STATUS[error.code]);
      assert.equal(sent.details, error.message);
      const got = ServeError.fromStatus(sent) ?? assert.fail("no details");
      const facts = ({ code, message, violations, metadata, retryDelayMs, quota }: ServeError) => ({
        code,
        message,
        violations: violations.map((one) => ({ ...one })),
        metadata: { ...metadata },
        retryDelayMs,
        quota,
      });
      assert.deepEqual(facts(got), facts(error));
    }),
    { numRuns: 500 },
  );
});

test("ServeError: a status is cut to what a trailer holds, and says so", () => {
  const violations = Array.from({ length: 5000 }, (_, i) => ({
    field: `field[${i}]`,
    description: "é".repeat(5000),
  }));
  const error = new ServeError("INVALID_ARGUMENT", "ü".repeat(100_000), { violations });
  const sent = error.toStatus();
  const bytes = sent.metadata.get("grpc-status-details-bin")[0];
  assert.ok(bytes instanceof Buffer && bytes.length < 24_000, `${bytes?.length}`);
  assert.ok(Buffer.byteLength(sent.details) < 4096);
  assert.match(sent.details, / … \(100000 characters\)$/);
  const got = ServeError.fromStatus(sent) ?? assert.fail("no details");
  assert.equal(got.violations.length, 16);
  assert.match(got.violations[0]?.description ?? "", / … \(5000 characters\)$/);
});

test("ServeError.fromStatus: statuses of others have no details", () => {
  assert.equal(ServeError.fromStatus({ details: "x" }), undefined);
  assert.equal(ServeError.fromStatus({ metadata: new Metadata() }), undefined);
  const foreign = new Metadata();
  foreign.set("grpc-status-details-bin", Buffer.from([0x08, 0x03]));
  assert.equal(ServeError.fromStatus({ metadata: foreign }), undefined);
});

test("ServeError.fromStatus: damaged details are none, never an exception", () => {
  const bytes = new ServeError("INVALID_IMAGE", "no", { quota: "q", retryDelayMs: 5 })
    .toStatus()
    .metadata.get("grpc-status-details-bin")[0];
  assert.ok(bytes instanceof Buffer);
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, value, end) => {
      const copy = Buffer.from(bytes).subarray(0, end);
      copy.subarray(at, at + 1).fill(value);
      const metadata = new Metadata();
      metadata.set("grpc-status-details-bin", copy);
      const got = ServeError.fromStatus({ metadata });
      assert.ok(got === undefined || codes.includes(got.code));
    }),
    { numRuns: 2000 },
  );
});

test("ServeError.from: its own errors as they are, anything else is INTERNAL with its cause", () => {
  const own = new ServeError("DRAINING", "x");
  assert.equal(ServeError.from(own), own);
  const cause = new TypeError("boom");
  const wrapped = ServeError.from(cause);
  assert.deepEqual([wrapped.code, wrapped.message, wrapped.cause], ["INTERNAL", "boom", cause]);
  assert.equal(ServeError.from("text").message, "text");
});

test("durations: milliseconds and back", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1e12 }), (millis) => {
      assert.equal(durationToMillis(millisToDuration(millis)), millis);
    }),
  );
});
