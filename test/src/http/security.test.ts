/** Keys, tenants and TLS on the HTTP front, as the official client sees them. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as secureRequest } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import OpenAI, { AuthenticationError, NotFoundError } from "openai";
import { serveHttp } from "../harness/http-front.js";
import { certificates } from "../security/certificates.js";

const folder = mkdtempSync(join(tmpdir(), "tessera-http-keys-"));
after(() => rmSync(folder, { recursive: true }));
const keys = join(folder, "keys.yaml");
const digest = (key: string) => createHash("sha256").update(key).digest("hex");
const entry = (key: string, tenant: string) =>
  `  - { sha256: "${digest(key)}", tenant: ${tenant}, admin: false }\n`;
writeFileSync(keys, `keys:\n${entry("one", "acme")}${entry("two", "other")}`);

const { url, call } = await serveHttp({ keys });
const model = "nvlm-d-tiny";
const messages = [{ role: "user" as const, content: "What is the name?" }];
const clientOf = (apiKey: string) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });

test("keys: a key that is known is let in, another is an AuthenticationError", async () => {
  const body = { model, messages, max_tokens: 2 };
  const answer = await clientOf("one").chat.completions.create(body);
  assert.equal(answer.object, "chat.completion");
  await assert.rejects(clientOf("three").chat.completions.create(body), (error: unknown) => {
    assert.ok(error instanceof AuthenticationError, String(error));
    assert.equal(error.code, "invalid_api_key");
    assert.doesNotMatch(error.message, /three/);
    return true;
  });
  await assert.rejects(clientOf("three").models.list(), AuthenticationError);
  assert.equal((await call("GET", "/v1/models")).status, 401);
  assert.equal((await call("GET", "/health")).status, 200);
});

test("keys: the stream of another tenant is not there, to be resumed or to be ended", async () => {
  const headers = (key: string) => ({ authorization: `Bearer ${key}` });
  const body = { messages, stream: true, resume: true, request_id: "mine", max_tokens: 4 };
  const whole = await call("POST", "/v1/chat/completions", { body, headers: headers("one") });
  const place = /^id: (.+)$/m.exec(whole.text)?.[1] ?? assert.fail(whole.text);
  const resume = (key: string) =>
    call("GET", "/v1/streams/mine", { headers: { ...headers(key), "last-event-id": place } });
  assert.equal((await resume("one")).status, 200);
  assert.equal((await resume("two")).status, 404);
  const ended = clientOf("two").delete("/streams/mine");
  await assert.rejects(ended, NotFoundError);
  // The id is this tenant's own.
  const same = await call("POST", "/v1/chat/completions", { body, headers: headers("two") });
  assert.equal(same.status, 200);
});

interface SecureAnswer {
  status: number | undefined;
  text: string;
}

function secureGet(address: string, path: string, ca: Buffer): Promise<SecureAnswer> {
  return new Promise((resolve, reject) => {
    const asked = secureRequest(`https://${address}${path}`, { ca, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => (text += piece));
      response.once("end", () => resolve({ status: response.statusCode, text }));
    });
    asked.once("error", reject).end();
  });
}

test("TLS: the front has the coordinator's certificate; a wrong authority and plain text are served nothing", async () => {
  const mine = await certificates();
  const others = await certificates();
  const { cert, key } = mine.server;
  const served = await serveHttp({ tls: { cert, key } });
  const address = served.url.replace("http://", "");
  const answer = await secureGet(address, "/v1/models", mine.ca);
  assert.equal(answer.status, 200);
  assert.match(answer.text, /"nvlm-d-tiny"/);
  await assert.rejects(secureGet(address, "/v1/models", others.ca), {
    code: /SELF_SIGNED|UNABLE_TO/,
  });
  await assert.rejects(served.call("GET", "/v1/models"), /fetch failed/);
});
