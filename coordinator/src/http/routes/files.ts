/** /v1/files: what batches read and write. */
import multipart from "@fastify/multipart";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { ServeError } from "@tessera/proto";
import { asText, oneOf, refuseUnknown } from "@tessera/proto/openai";
import { callerOf } from "../call.js";
import {
  createFileSchema,
  deleteFileSchema,
  fileContentSchema,
  fileSchema,
  filesSchema,
} from "../schemas/files.js";
import {
  FILE_LIMITS,
  type FileStore,
  type StoredFile,
  type Upload,
} from "../storage/file-store.js";
import { kept } from "../storage/kept.js";
import { listBody, pageOf, readPage } from "../storage/page.js";
import type { Routes } from "./index.js";

const PATH = "/v1/files";
const MAX_FILENAME = 255;
const MAX_FIELDS = 8;
const MAX_FIELD_BYTES = 1024;
const PAGE = { limit: 10_000, most: 10_000, known: ["purpose"] };
const PURPOSES = ["batch", "batch_output"] as const;

export function fileBody({ id, bytes, createdMs, filename, purpose }: StoredFile) {
  const created = Math.floor(createdMs / 1e3);
  return { id, object: "file", bytes, created_at: created, filename, purpose, status: "processed" };
}

function checkFilename(filename: string): string {
  if (filename.length > MAX_FILENAME)
    throw ServeError.field("file", `has a name of ${filename.length}, limit ${MAX_FILENAME}`);
  if (!filename.endsWith(".jsonl"))
    throw ServeError.field("file", `is named ${JSON.stringify(filename)}, must be a .jsonl`);
  return filename.toWellFormed();
}

interface Form {
  upload: Upload | undefined;
  filename: string;
  fields: Record<string, unknown>;
}

/** Fields may come before the file or behind it. */
async function readForm(request: FastifyRequest, store: FileStore, form: Form): Promise<void> {
  const { tenant } = callerOf(request);
  for await (const part of request.parts()) {
    if (part.type === "field") {
      form.fields[part.fieldname] = part.value;
      continue;
    }
    if (part.fieldname !== "file" || form.upload !== undefined)
      throw ServeError.field(part.fieldname, "is one file too many, must be file alone");
    form.filename = checkFilename(part.filename);
    form.upload = await store.upload(tenant, part.file);
  }
}

async function keepForm({ upload, filename, fields }: Form): Promise<StoredFile> {
  refuseUnknown(fields, ["purpose"]);
  const purpose = oneOf(fields["purpose"], ["batch"], "purpose");
  if (upload === undefined) throw ServeError.field("file", "is missing");
  if (upload.bytes === 0) throw ServeError.field("file", "is empty");
  return upload.keep({ filename, purpose });
}

/** What is wrong with a form has no system call that failed, nor one of fastify's codes. */
function formError(error: unknown): unknown {
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  if (error instanceof ServeError || code !== undefined || syscall !== undefined) return error;
  return ServeError.field("body", `is no form: ${message}`);
}

async function createFile(request: FastifyRequest, store: FileStore): Promise<StoredFile> {
  if (!request.isMultipart()) throw ServeError.field("content-type", "must be multipart/form-data");
  const form: Form = { upload: undefined, filename: "", fields: {} };
  try {
    await readForm(request, store, form);
    return await keepForm(form);
  } catch (error) {
    await form.upload?.drop();
    throw formError(error);
  }
}

function listFiles(request: FastifyRequest, store: FileStore): object {
  const ask = readPage(request.query, PAGE);
  const { purpose } = request.query as { purpose?: unknown };
  const wanted =
    purpose === undefined ? undefined : oneOf(asText(purpose, "purpose"), PURPOSES, "purpose");
  const all = store.all(callerOf(request).tenant);
  const fits = all.filter((file) => wanted === undefined || file.purpose === wanted);
  const { entries, more } = pageOf(fits, ask);
  return listBody(entries.map(fileBody), more);
}

interface OfFile {
  Params: { id: string };
}

function addReading(scope: FastifyInstance, store: FileStore | undefined): void {
  scope.get(PATH, { schema: filesSchema }, (request, reply) =>
    reply.send(listFiles(request, kept(store, PATH))),
  );
  scope.get<OfFile>(`${PATH}/:id`, { schema: fileSchema }, (request, reply) => {
    const { tenant } = callerOf(request);
    return reply.send(fileBody(kept(store, PATH).get(tenant, request.params.id)));
  });
  scope.get<OfFile>(
    `${PATH}/:id/content`,
    { schema: fileContentSchema },
    async (request, reply) => {
      const files = kept(store, PATH);
      const { tenant } = callerOf(request);
      const file = files.get(tenant, request.params.id);
      const name = encodeURIComponent(file.filename);
      reply
        .type("application/octet-stream")
        .header("content-length", file.bytes)
        .header("content-disposition", `attachment; filename*=UTF-8''${name}`);
      return reply.send(await files.content(tenant, file));
    },
  );
}

export function fileRoutes(store: FileStore | undefined): Routes {
  const { fileBytes } = store?.limits ?? FILE_LIMITS;
  return (app) => {
    // Forms are read here alone.
    void app.register(async (scope) => {
      // One byte more: what is too long is seen, not cut.
      const limits = {
        fileSize: fileBytes + 1,
        files: 1,
        fields: MAX_FIELDS,
        parts: MAX_FIELDS + 1,
        fieldSize: MAX_FIELD_BYTES,
      };
      await scope.register(multipart, { limits });
      scope.addContentTypeParser("*", (_request, _payload, done) => done(null));
      scope.post(PATH, { schema: createFileSchema }, async (request) =>
        fileBody(await createFile(request, kept(store, PATH))),
      );
      addReading(scope, store);
      scope.delete<OfFile>(`${PATH}/:id`, { schema: deleteFileSchema }, async (request) => {
        const { id } = request.params;
        await kept(store, PATH).remove(callerOf(request).tenant, id);
        return { id, object: "file", deleted: true };
      });
    });
  };
}
