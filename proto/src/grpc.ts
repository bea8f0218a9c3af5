/** grpc-js service definitions, derived from the generated descriptors. */
import {
  fromBinary,
  toBinary,
  type DescMessage,
  type DescService,
  type MessageShape,
} from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";
import type {
  handleBidiStreamingCall,
  handleClientStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  MethodDefinition,
} from "@grpc/grpc-js";

type Shape<T> = T extends DescMessage ? MessageShape<T> : never;

/** Messages a server may receive and send: a shape of the schema's type. */
type Definition<I extends DescMessage, O extends DescMessage> = MethodDefinition<
  MessageShape<I>,
  MessageShape<O>
>;

export type ServiceDefinition<M extends GenServiceMethods> = {
  [K in keyof M]: Definition<M[K]["input"], M[K]["output"]>;
};

type Handler<Kind, I, O> = Kind extends "unary"
  ? handleUnaryCall<I, O>
  : Kind extends "server_streaming"
    ? handleServerStreamingCall<I, O>
    : Kind extends "client_streaming"
      ? handleClientStreamingCall<I, O>
      : handleBidiStreamingCall<I, O>;

/** The handlers a grpc-js server needs for a service, typed by its messages. */
export type ServiceHandlers<M extends GenServiceMethods> = {
  [K in keyof M]: Handler<M[K]["methodKind"], Shape<M[K]["input"]>, Shape<M[K]["output"]>>;
};

function methodDefinition(service: DescService, method: DescService["methods"][number]) {
  return {
    path: `/${service.typeName}/${method.name}`,
    requestStream:
      method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream:
      method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: (message: MessageShape<DescMessage>) =>
      Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
    responseSerialize: (message: MessageShape<DescMessage>) =>
      Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
    originalName: method.localName,
  };
}

/** Definition of `service` for `Server.addService` and `makeGenericClientConstructor`; keys are local method names. */
export function serviceDefinition<M extends GenServiceMethods>(
  service: GenService<M>,
): ServiceDefinition<M> {
  const entries = service.methods.map((method) => [
    method.localName,
    methodDefinition(service, method),
  ]);
  return Object.fromEntries(entries) as ServiceDefinition<M>;
}
