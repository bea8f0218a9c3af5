/** The HTTP front: OpenAI's routes over the same streams as gRPC. */
import cors from "@fastify/cors";
import swagger from "@fastify/swagger";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { bareHost, parseAddress, ServeError } from "@tessera/proto";
import { BUILD } from "../engine/serving.js";
import { refused, type Front } from "../stream/front.js";
import { CALLER, OPEN_ROUTE, requestIdOf } from "./call.js";
import { errorBody, fromFastify, toHttp } from "./errors.js";
import { addJsonBody } from "./json-body.js";
import { createListener, type HttpTls } from "./listener.js";
import { PathTable } from "./path-table.js";
import { ROUTES, type Routes } from "./routes/index.js";
import { SHARED } from "./schemas/shared.js";

export const MAX_BODY_BYTES = 64 << 20;
/** For answers under way, when the front closes. */
const CLOSE_DEADLINE_MS = 2000;
const MAX_PARAM_LENGTH = 512;

export interface HttpOptions {
  /** host:port; port 0 takes a free one. */
  listen: string;
  /** Of a body, told before it is read; default 64 MiB. */
  bodyLimit?: number | undefined;
  /** Origins whose pages may read answers; `*` is all, absent none. */
  corsOrigins?: string[] | undefined;
  tls?: HttpTls | undefined;
  /** Beside those that are always served. */
  routes?: readonly Routes[] | undefined;
}

export interface RunningHttp {
  /** host:port */
  address: string;
  close(): Promise<void>;
}

/** Every error that is answered before an answer began passes here once. */
function answerError(
  front: Front,
  { error, bodyLimit }: { error: unknown; bodyLimit: number },
  reply: FastifyReply,
): FastifyReply {
  const { status, headers, body } = toHttp(refused(front, fromFastify(error, bodyLimit)));
  return reply.code(status).headers(headers).type("application/json").send(body);
}

/** A path that is not there, or not with this method. */
function answerUnknown(
  paths: PathTable,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  const { method } = request;
  const path = request.url.split("?")[0] ?? "/";
  const methods = paths.methodsOf(path);
  const of = { type: "invalid_request_error" };
  if (methods.length === 0)
    return reply
      .code(404)
      .send(errorBody(`${method} ${path}: no such path`, { ...of, code: "unknown_url" }));
  return reply
    .code(405)
    .header("allow", methods.join(", "))
    .send(
      errorBody(`${method} ${path}: must be ${methods.join(" or ")}`, {
        ...of,
        code: "method_not_allowed",
      }),
    );
}

async function describe(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "Tessera", version: BUILD.replace(/^tessera /, "") },
      components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
      security: [{ key: [] }],
    },
    refResolver: {
      buildLocalReference: (schema, _uri, _fragment, i) =>
        typeof schema["$id"] === "string" ? schema["$id"] : `schema-${i}`,
    },
  });
  for (const schema of SHARED) app.addSchema(schema);
}

async function build(front: Front, options: HttpOptions): Promise<FastifyInstance> {
  const { bodyLimit = MAX_BODY_BYTES, corsOrigins = [], tls } = options;
  const app: FastifyInstance = fastify({
    bodyLimit,
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    return503OnClosing: false,
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    requestIdHeader: false,
    genReqId: requestIdOf,
    // A path that is none: there is no route whose handlers could answer.
    frameworkErrors: (error, request, reply) => {
      reply.header("x-request-id", request.id);
      void answerError(front, { error, bodyLimit }, reply);
    },
    serverFactory: (handler) => createListener(handler, tls),
  });
  // Bodies are read by the request part, which names fields and values; schemas are for the document.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  addJsonBody(app);
  const paths = new PathTable();
  app.addHook("onRoute", ({ url, method }) => paths.add(url, [method].flat()));
  if (corsOrigins.length > 0)
    await app.register(cors, {
      origin: corsOrigins.includes("*") ? "*" : corsOrigins,
      methods: ["GET", "POST", "DELETE"],
      exposedHeaders: ["x-request-id", "retry-after", "retry-after-ms"],
    });
  app.decorateRequest(CALLER);
  app.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id);
    if ((request.routeOptions.config as Partial<typeof OPEN_ROUTE>).open === true) return;
    request.setDecorator(CALLER, front.access.authenticate(request.headers.authorization));
  });
  app.setErrorHandler((error, _, reply) => answerError(front, { error, bodyLimit }, reply));
  app.setNotFoundHandler((request, reply) => answerUnknown(paths, request, reply));
  await describe(app);
  for (const routes of [...(options.routes ?? []), ...ROUTES]) routes(app, front);
  return app;
}

async function shutDown(app: FastifyInstance): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), CLOSE_DEADLINE_MS);
  await app.close();
  clearTimeout(timer);
}

/** @throws ServeError CONFIGURATION when the address cannot be had. */
export async function startHttp(front: Front, options: HttpOptions): Promise<RunningHttp> {
  const { host, port } = parseAddress(options.listen, "http");
  const app = await build(front, options);
  try {
    await app.listen({ host: bareHost(host), port });
  } catch (cause) {
    await app.close();
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === "EADDRINUSE" ? "is taken by another process" : message;
    throw new ServeError("CONFIGURATION", `http: ${options.listen} ${why}`, { cause });
  }
  const address = app.server.address();
  const bound = typeof address === "object" && address !== null ? address.port : port;
  return { address: `${host}:${bound}`, close: () => shutDown(app) };
}
