/** GET /health, /version, /openapi.json: for whoever asks, without a key. */
import type { FastifyInstance } from "fastify";
import { ServeError } from "@tessera/proto";
import { BUILD } from "../../engine/serving.js";
import type { Front } from "../../stream/front.js";
import { OPEN_ROUTE } from "../call.js";
import { healthSchema, openapiSchema, versionSchema } from "../schemas/service.js";

export function serviceRoutes(app: FastifyInstance, { serving }: Front): void {
  const open = { config: OPEN_ROUTE, exposeHeadRoute: true };
  app.get("/health", { ...open, schema: healthSchema }, (_, reply) => {
    const { state } = serving;
    if (state === "draining") throw new ServeError("DRAINING", "the server is draining");
    if (state !== "ready" || !serving.live())
      throw new ServeError("NOT_READY", `the server does not serve, it is ${state}`);
    return reply.send({ status: "ok" });
  });
  const version = BUILD.replace(/^tessera /, "");
  app.get("/version", { ...open, schema: versionSchema }, (_, reply) => reply.send({ version }));
  app.get("/openapi.json", { ...open, schema: openapiSchema }, (_, reply) =>
    reply.send(app.swagger()),
  );
}
