import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAddress } from "./address.js";

test("address: host and port, an IPv6 host in brackets too", () => {
  assert.deepEqual(parseAddress("127.0.0.1:4000", "listen"), { host: "127.0.0.1", port: 4000 });
  assert.deepEqual(parseAddress("[::1]:0", "listen"), { host: "[::1]", port: 0 });
});

for (const text of [
  "",
  "host",
  "host:",
  ":1",
  "host:x",
  "host:-1",
  "host:65536",
  "host:1e3",
  "host: 1",
])
  test(`address: ${JSON.stringify(text)} is refused, naming the field`, () => {
    assert.throws(() => parseAddress(text, "listen"), /listen: .* is no host:port/);
  });
