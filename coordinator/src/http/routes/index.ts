/** Everything that the front serves; each part adds its own routes. */
import type { FastifyInstance } from "fastify";
import type { Front } from "../../stream/front.js";
import { chatRoutes } from "./chat.js";
import { completionRoutes } from "./completions.js";
import { modelRoutes } from "./models.js";
import { responseRoutes } from "./responses.js";
import { serviceRoutes } from "./service.js";
import { streamRoutes } from "./streams.js";
import { tokenRoutes } from "./tokens.js";

export type Routes = (app: FastifyInstance, front: Front) => void;

export const ROUTES: readonly Routes[] = [
  chatRoutes,
  completionRoutes,
  responseRoutes,
  streamRoutes,
  modelRoutes,
  tokenRoutes,
  serviceRoutes,
];
