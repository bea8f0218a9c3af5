import assert from "node:assert/strict";
import { test } from "node:test";
import { parseNatsUrl, serverProblem } from "./nats-server.js";

test("parseNatsUrl: hosts, ports and a list", () => {
  assert.deepEqual(parseNatsUrl("nats://10.0.0.1:4222").options, { servers: ["10.0.0.1:4222"] });
  assert.deepEqual(parseNatsUrl("nats").options, { servers: ["nats"] });
  assert.deepEqual(parseNatsUrl("nats://a:1,b:2,[::1]:3").options, {
    servers: ["a:1", "b:2", "[::1]:3"],
  });
});

test("parseNatsUrl: what it shows has no secret", () => {
  const both = parseNatsUrl("nats://tessera:pa%40ss@host:4222");
  assert.deepEqual(both.options, { servers: ["host:4222"], user: "tessera", pass: "pa@ss" });
  assert.equal(both.shown, "nats://host:4222");
  assert.deepEqual(parseNatsUrl("nats://s3cret@host").options, {
    servers: ["host"],
    token: "s3cret",
  });
});

test("parseNatsUrl: anything else is refused without repeating it", () => {
  for (const text of [
    "",
    "http://s3cret@host",
    "nats://",
    "nats://host/path",
    "a:1,,b",
    "nats://h:99999",
  ])
    assert.throws(() => parseNatsUrl(text), /^ServeError: nats: must be nats:\/\/\[user/, text);
});

test("serverProblem: 2.9 and newer will do, older and unknown are named", () => {
  for (const version of ["2.9.0", "2.9.10", "2.10.0-RC.1", "2.11.4", "3.0.0"])
    assert.equal(serverProblem(version), undefined, version);
  for (const version of ["2.8.4", "1.4.1", "0.9.6", "unknown"])
    assert.equal(serverProblem(version), `nats-server is version ${version}, must be 2.9 or newer`);
});
