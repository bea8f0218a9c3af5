/** A request's way: checked, admitted, prepared, run, and its place given back. */
import { randomUUID } from "node:crypto";
import { ServeError } from "@tessera/proto";
import type { GenerateRequest } from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import type { Logger } from "pino";
import type { Caller } from "../access/caller.js";
import type { CoordinatorMetrics } from "../metrics.js";
import type { Grammar, GrammarCompiler } from "../request/constraint.js";
import {
  checkRequest,
  mostPromptTokens,
  prepareRequest,
  type CheckedRequest,
  type PrepareContext,
  type PreparedRequest,
} from "../request/index.js";
import type { RequestTrace } from "../trace/trace.js";
import type { ActiveRequest, RequestEvents } from "./active.js";
import { Admission, type Admitted, type AdmissionLimits } from "./admission.js";
import type { EngineLoop } from "./engine-loop.js";
import { RequestRecord } from "./record.js";

export interface Asked {
  message: GenerateRequest;
  caller: Caller;
  signal: AbortSignal;
  trace: RequestTrace;
}

export interface RequestsOptions {
  context: PrepareContext;
  loop: EngineLoop;
  metrics: CoordinatorMetrics;
  log: Logger;
  grammars: GrammarCompiler;
  limits: AdmissionLimits;
  /** @throws ServeError DRAINING, NOT_READY */
  checkOpen: () => void;
}

interface Run {
  place: Admitted;
  record: RequestRecord;
  grammar: Grammar | undefined;
}

export class Requests {
  private readonly admission: Admission;

  constructor(private readonly options: RequestsOptions) {
    this.admission = new Admission(options.limits, () => performance.now());
  }

  get size(): number {
    return this.admission.size;
  }
  get queuedTokens(): number {
    return this.admission.queuedTokens;
  }
  /** @throws AssertionError when something is held for nobody. */
  audit(): void {
    this.admission.audit();
  }

  /** The id is free again when the sink is done or failed. @throws ServeError instead of events that are missing */
  async run(asked: Asked, eventsOf: (prepared: PreparedRequest) => RequestEvents): Promise<void> {
    const { metrics, log, context } = this.options;
    const { message, signal, trace } = asked;
    const record = new RequestRecord({ metrics, log, trace }, signal, message.requestId);
    let place: Admitted | undefined;
    try {
      this.options.checkOpen();
      const checked = checkRequest(message, context);
      place = this.admit(checked, asked);
      record.admitted(place.id);
      const prepared = await this.prepare(checked, place);
      const grammar = await this.compile(prepared, place.signal);
      await this.serve(prepared, eventsOf(prepared), { place, record, grammar });
    } catch (error) {
      record.failed(ServeError.from(error), place?.active);
      throw error;
    } finally {
      if (place !== undefined) this.admission.leave(place);
    }
  }

  private admit(
    checked: CheckedRequest,
    { caller, signal }: Pick<Asked, "caller" | "signal">,
    id = checked.requestId ?? `req-${randomUUID()}`,
  ): Admitted {
    const { tenant, policy } = caller;
    const { images } = checked;
    const most = images.reduce((sum, image) => sum + image.maxTiles + 1, 0);
    return this.admission.enter(
      { id, tenant, policy, signal, images: images.length },
      {
        promptTokens: mostPromptTokens(checked, this.options.context),
        tileBytes: most * this.tileBytes,
      },
    );
  }

  private get tileBytes(): number {
    return 3 * this.options.context.tile.size ** 2;
  }

  private async prepare(checked: CheckedRequest, place: Admitted): Promise<PreparedRequest> {
    const { context, metrics } = this.options;
    const of = {
      requestId: place.id,
      tenant: place.tenant,
      // A text alone waits for no pictures of others.
      inTurn: <T>(work: () => Promise<T>) => this.admission.prepare(place, work),
      onDecode: () => metrics.imagesDecoded.inc(),
    };
    const prepared = await prepareRequest(checked, of, context, place.signal);
    place.signal.throwIfAborted();
    const tileBytes = prepared.tiles.length * this.tileBytes;
    this.admission.settle(place, { promptTokens: prepared.promptIds.length, tileBytes });
    return prepared;
  }

  private async compile(
    { constraint, constraintField: field, tenant }: PreparedRequest,
    signal: AbortSignal,
  ): Promise<Grammar | undefined> {
    if (constraint === undefined) return undefined;
    const grammar = await this.options.grammars.compile(constraint, { tenant, field, signal });
    if (!signal.aborted) return grammar;
    grammar.close();
    throw signal.reason as Error;
  }

  private serve(prepared: PreparedRequest, sink: RequestEvents, run: Run): Promise<void> {
    const { place, record, grammar } = run;
    record.accepted(prepared);
    const { loop } = this.options;
    const { weight } = place.of.policy;
    return new Promise((resolve, reject) => {
      const active = loop.submit(
        prepared,
        {
          begun: () => this.admission.begun(place),
          promptScored: (tokens) => sink.started(tokens),
          piece: (choice, piece) => {
            this.admission.used(place, piece.tokens.length);
            record.piece(choice, piece);
            sink.piece(choice, piece);
          },
          done(timings) {
            record.done(active, timings);
            sink.done(timings);
            resolve();
          },
          failed(error) {
            sink.failed(error);
            reject(error);
          },
        },
        { weight, grammar },
      );
      active.exemplar = record.exemplar;
      place.active = active;
      if (prepared.promptLogprobs === undefined) sink.started();
      const stop = () => this.stopped(place, active);
      if (place.signal.aborted) stop();
      else place.signal.addEventListener("abort", stop, { once: true });
    });
  }

  /** The call of a running request ended before its answer: the client left, does not read, or its time is up. */
  private stopped(place: Admitted, active: ActiveRequest): void {
    const reason = ServeError.from(place.signal.reason);
    if (reason.code === "ABORTED") this.end(place);
    else this.options.loop.fail(active, reason);
  }

  /** Takes an admission slot too: pictures are decoded. */
  async count(
    message: GenerateRequest,
    caller: Caller,
    signal: AbortSignal,
  ): Promise<PreparedRequest> {
    const checked = checkRequest(message, this.options.context);
    const place = this.admit(checked, { caller, signal }, `count-${randomUUID()}`);
    try {
      return await this.prepare(checked, place);
    } finally {
      this.admission.leave(place);
    }
  }

  /** Ends a request from outside, whether it runs or is being prepared. */
  private end(place: Admitted): void {
    if (place.active === undefined)
      place.abort(new ServeError("ABORTED", "the request was aborted"));
    else this.options.loop.cancel(place.active, { reason: "aborted" });
  }

  /** @throws ServeError REQUEST_NOT_FOUND when the caller's tenant runs none of this id */
  abort(requestId: string, { tenant }: Caller): void {
    if (this.endIfHere(requestId, tenant)) return;
    throw ServeError.field(
      "request_id",
      `${JSON.stringify(requestId)} is not running`,
      "REQUEST_NOT_FOUND",
    );
  }

  /** False when it does not run here. */
  endIfHere(id: string, tenant: string): boolean {
    const place = this.admission.get({ id, tenant });
    if (place !== undefined) this.end(place);
    return place !== undefined;
  }

  /** → how many there were */
  endAll(): number {
    const left = this.admission.all();
    for (const place of left) this.end(place);
    return left.length;
  }
}
