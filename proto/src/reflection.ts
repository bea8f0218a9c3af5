/** The descriptors of services as `@grpc/reflection` takes them, from the generated code. */
import { toBinary, type DescFile, type DescService } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** Of the two formats reflection knows, the one without functions; it reads the files alone. */
const FORMAT = "Protocol Buffer 3 EnumDescriptorProto";

/** The part of a grpc-js PackageDefinition that reflection reads. */
export type ReflectedPackage = Record<
  string,
  { format: typeof FORMAT; type: object; fileDescriptorProtos: Buffer[] }
>;

function withImports(file: DescFile, into: Map<string, DescFile>): void {
  if (into.has(file.name)) return;
  into.set(file.name, file);
  for (const imported of file.dependencies) withImports(imported, into);
}

/** The files that declare `services`, and what they import. */
export function reflectedPackage(services: readonly DescService[]): ReflectedPackage {
  return Object.fromEntries(
    services.map((service) => {
      const files = new Map<string, DescFile>();
      withImports(service.file, files);
      const fileDescriptorProtos = [...files.values()].map(({ proto }) =>
        Buffer.from(toBinary(FileDescriptorProtoSchema, proto)),
      );
      return [service.typeName, { format: FORMAT, type: {}, fileDescriptorProtos }];
    }),
  );
}
