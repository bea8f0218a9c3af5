import assert from "node:assert/strict";
import { test } from "node:test";
import { bindProblems, frontGuards, isLoopback, peerGuards } from "./bind.js";

test("isLoopback: 127.0.0.0/8, ::1 in every spelling, and localhost are; nothing else is", () => {
  const near = ["127.0.0.1", "127.255.0.9", "::1", "[::1]", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"];
  const named = ["localhost", "LOCALHOST"];
  const far = ["0.0.0.0", "::", "[::]", "10.0.0.7", "128.0.0.1", "::ffff:10.0.0.7", "::2"];
  const tricky = ["127.0.0.1.example", "localhost.example", "127.1", "", "[localhost", "worker-1"];
  for (const host of [...near, ...named]) assert.ok(isLoopback(host), host);
  for (const host of [...far, ...tricky]) assert.ok(!isLoopback(host), host);
});

function front(host: string, keys: boolean, tls: boolean, insecureBind?: boolean): string[] {
  return bindProblems([
    { field: "listen", host, guards: frontGuards({ keys, tls }), insecureBind },
  ]);
}

test("bindProblems: a front on loopback needs nothing", () => {
  assert.deepEqual(front("127.0.0.1", false, false), []);
  assert.deepEqual(front("[::1]", false, false), []);
});

test("bindProblems: a front beyond loopback needs keys and TLS, and says what it lacks", () => {
  assert.deepEqual(front("0.0.0.0", false, false), [
    "listen: 0.0.0.0 is beyond loopback and needs keys and tls-cert and tls-key; insecure-bind goes without",
  ]);
  assert.match(front("::", true, false).join(), /needs tls-cert and tls-key;/);
  assert.match(front("example.org", false, true).join(), /needs keys;/);
  assert.deepEqual(front("0.0.0.0", true, true), []);
  assert.deepEqual(front("0.0.0.0", false, false, true), []);
});

test("bindProblems: every binding is judged by its own guards", () => {
  const guards = peerGuards({ mutualTls: false });
  const problems = bindProblems([
    { field: "listen", host: "0.0.0.0", guards, insecureBind: false },
    { field: "advertise", host: "10.0.0.7", guards, insecureBind: undefined },
    { field: "http", host: "127.0.0.1", guards, insecureBind: undefined },
  ]);
  assert.deepEqual(
    problems.map((problem) => problem.split(";")[0]),
    [
      "listen: 0.0.0.0 is beyond loopback and needs tls-cert, tls-key and tls-ca",
      "advertise: 10.0.0.7 is beyond loopback and needs tls-cert, tls-key and tls-ca",
    ],
  );
});
