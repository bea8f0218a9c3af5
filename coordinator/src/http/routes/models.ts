/** GET /v1/models, GET /v1/models/{id}: the one model that is served. */
import type { FastifyInstance } from "fastify";
import { ServeError } from "@tessera/proto";
import type { Front } from "../../stream/front.js";
import { nowSeconds } from "../call.js";
import { modelSchema, modelsSchema } from "../schemas/models.js";

export function modelRoutes(app: FastifyInstance, { serving }: Front): void {
  const { servedName, maxModelLen } = serving.context;
  const created = nowSeconds();
  const model = {
    id: servedName,
    object: "model",
    created,
    owned_by: "tessera",
    max_model_len: maxModelLen,
  };
  app.get("/v1/models", { schema: modelsSchema, exposeHeadRoute: true }, (_, reply) =>
    reply.send({ object: "list", data: [model] }),
  );
  app.get<{ Params: { id: string } }>(
    "/v1/models/:id",
    { schema: modelSchema, exposeHeadRoute: true },
    (request, reply) => {
      const { id } = request.params;
      if (id !== servedName)
        throw ServeError.field(
          "model",
          `is ${JSON.stringify(id)}, served is ${JSON.stringify(servedName)}`,
          "MODEL_NOT_FOUND",
        );
      return reply.send(model);
    },
  );
}
