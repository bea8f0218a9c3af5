/** Schemas as applications send them, in the manner of JSONSchemaBench; all are supported. */
const str = { type: "string" } as const;
const short = { type: "string", maxLength: 20 } as const;
const int = { type: "integer" } as const;
const num = { type: "number" } as const;
const bool = { type: "boolean" } as const;
const list = (items: object, more: object = {}) => ({ type: "array", items, ...more });
const obj = (properties: object, more: object = {}) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
  ...more,
});
const some = (properties: object, required: string[] = [], more: object = {}) => ({
  type: "object",
  properties,
  required,
  ...more,
});
const ref = (name: string) => ({ $ref: `#/$defs/${name}` });

export const SCHEMAS: Readonly<Record<string, object | boolean>> = {
  anything: true,
  "any object": { type: "object" },
  "any list": { type: "array" },
  person: obj({ name: short, age: { type: "integer", minimum: 0, maximum: 150 } }),
  "optional person": some({ name: short, age: int, email: { type: "string", format: "email" } }),
  address: obj({ street: short, city: short, zip: { type: "string", pattern: "^[0-9]{5}$" } }),
  "nested person": obj({
    name: short,
    address: obj({ city: short, country: { enum: ["NL", "DE", "FR"] } }),
  }),
  "function call": obj({
    name: { const: "get_weather" },
    arguments: obj({ city: short, unit: { enum: ["C", "F"] } }),
  }),
  "one of two calls": {
    anyOf: [
      obj({ name: { const: "add" }, arguments: obj({ a: num, b: num }) }),
      obj({ name: { const: "greet" }, arguments: obj({ who: short }) }),
    ],
  },
  "tagged shapes": {
    oneOf: [
      obj({ kind: { const: "circle" }, radius: { type: "number", exclusiveMinimum: 0 } }),
      obj({
        kind: { const: "box" },
        width: { type: "number", minimum: 0 },
        height: { type: "number", minimum: 0 },
      }),
    ],
  },
  "tagged by different keys": {
    oneOf: [
      some({ file: short }, ["file"]),
      some({ url: { type: "string", format: "uri" } }, ["url"]),
    ],
  },
  "string or number": { type: ["string", "number"] },
  nullable: obj({ note: { anyOf: [short, { type: "null" }] } }),
  sentiment: obj({
    label: { enum: ["positive", "negative", "neutral"] },
    score: { type: "number", minimum: 0, maximum: 1 },
  }),
  probabilities: list({ type: "number", minimum: 0, maximum: 1 }, { minItems: 3, maxItems: 3 }),
  "bounding boxes": list(
    obj({
      label: short,
      box: list({ type: "integer", minimum: 0, maximum: 1000 }, { minItems: 4, maxItems: 4 }),
    }),
    { maxItems: 3 },
  ),
  integers: list(int),
  matrix: list(list(num, { minItems: 2, maxItems: 2 }), { minItems: 2, maxItems: 2 }),
  tuple: { type: "array", prefixItems: [short, int, bool], items: false, minItems: 3 },
  "open tuple": { type: "array", prefixItems: [short], items: int, maxItems: 4 },
  flags: obj({ a: bool, b: bool, c: bool, d: bool }),
  "many optional": some(
    Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`field_${i}`, int])),
  ),
  configuration: some(
    {
      host: { type: "string", format: "hostname" },
      port: { type: "integer", minimum: 1, maximum: 65535 },
      tls: bool,
    },
    ["host", "port"],
  ),
  "map of integers": { type: "object", additionalProperties: int },
  "map beside names": some({ version: int }, ["version"], { additionalProperties: bool }),
  labels: {
    type: "object",
    patternProperties: { "^[a-z]{1,8}$": short },
    additionalProperties: false,
  },
  "keys in a form": {
    type: "object",
    propertyNames: { pattern: "^[A-Z]{2}$" },
    additionalProperties: num,
  },
  "linked list": {
    ...ref("node"),
    $defs: { node: obj({ value: int, next: { anyOf: [{ type: "null" }, ref("node")] } }) },
  },
  tree: {
    ...ref("tree"),
    $defs: { tree: obj({ name: short, children: list(ref("tree"), { maxItems: 2 }) }) },
  },
  expression: {
    ...ref("e"),
    $defs: {
      e: { anyOf: [int, obj({ op: { enum: ["+", "*"] }, left: ref("e"), right: ref("e") })] },
    },
  },
  "file system": {
    ...ref("entry"),
    $defs: {
      entry: {
        oneOf: [
          obj({ type: { const: "file" }, size: { type: "integer", minimum: 0 } }),
          obj({ type: { const: "dir" }, entries: list(ref("entry"), { maxItems: 2 }) }),
        ],
      },
    },
  },
  "date and time": obj({
    day: { type: "string", format: "date" },
    at: { type: "string", format: "date-time" },
  }),
  "time and duration": obj({
    at: { type: "string", format: "time" },
    lasts: { type: "string", format: "duration" },
  }),
  identifiers: obj({
    id: { type: "string", format: "uuid" },
    ip: { type: "string", format: "ipv4" },
    v6: { type: "string", format: "ipv6" },
  }),
  link: obj({
    href: { type: "string", format: "uri", maxLength: 255 },
    rel: { enum: ["self", "next"] },
  }),
  slug: { type: "string", pattern: "^[a-z0-9]+(?:-[a-z0-9]+)*$" },
  phone: { type: "string", pattern: "^\\+[1-9][0-9]{6,14}$" },
  "semantic version": {
    type: "string",
    pattern: "^(0|[1-9]\\d{0,3})\\.(0|[1-9]\\d{0,3})\\.(0|[1-9]\\d{0,3})$",
  },
  "hex colour": { type: "string", pattern: "^#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})$" },
  "starts with": { type: "string", pattern: "^https://", maxLength: 40 },
  "word inside": { type: "string", pattern: "tessera", maxLength: 30 },
  "identifier of limited length": {
    type: "string",
    pattern: "^[A-Za-z_][A-Za-z0-9_]*$",
    maxLength: 16,
  },
  "anything but line ends": { type: "string", pattern: "^.{3,12}$" },
  "not a digit": { type: "string", pattern: "^\\D\\S{2}$" },
  umlauts: { type: "string", pattern: "^[a-zäöüß]{2,6}$" },
  "long text": { type: "string", minLength: 1, maxLength: 280 },
  "at least ten": { type: "string", minLength: 10 },
  temperature: { type: "number", minimum: -273.15, maximum: 1000 },
  "latitude and longitude": obj({
    lat: { type: "number", minimum: -90, maximum: 90 },
    lon: { type: "number", minimum: -180, maximum: 180 },
  }),
  price: { type: "number", exclusiveMinimum: 0 },
  "half steps": { type: "number", minimum: 0, maximum: 5, multipleOf: 0.5 },
  "multiples of twelve": { type: "integer", minimum: 0, multipleOf: 12 },
  timestamp: { type: "integer", minimum: 1_500_000_000_000, maximum: 1_900_000_000_000 },
  "uint64 by name": { type: "integer", minimum: 0, maximum: 18446744073709551615 },
  dice: list({ type: "integer", minimum: 1, maximum: 6 }, { minItems: 2, maxItems: 5 }),
  "set of days": list(
    { enum: ["mon", "tue", "wed", "thu", "fri"] },
    { uniqueItems: true, minItems: 1 },
  ),
  "contains an admin": list(
    { enum: ["user", "admin"] },
    { contains: { const: "admin" }, maxItems: 5 },
  ),
  "mixed constants": { enum: [0, "zero", null, false, { zero: 0 }, [0]] },
  "all of two": { allOf: [some({ id: int }, ["id"]), some({ name: short }, ["name"])] },
  "all of references": {
    allOf: [ref("a"), ref("b")],
    unevaluatedProperties: false,
    $defs: { a: some({ x: int }, ["x"]), b: some({ y: bool }) },
  },
  dependent: some({ card: { type: "string", pattern: "^[0-9]{16}$" }, billing: short }, [], {
    dependentRequired: { card: ["billing"] },
  }),
  "dependent schema": some({ a: int, b: int }, [], {
    dependentSchemas: { a: { required: ["b"] } },
  }),
  "at least one": some({ mail: short, phone: short }, [], {
    anyOf: [{ required: ["mail"] }, { required: ["phone"] }],
  }),
  "one or two of three": some({ a: int, b: int, c: int }, [], {
    minProperties: 1,
    maxProperties: 2,
  }),
  "draft 7": {
    $schema: "http://json-schema.org/draft-07/schema#",
    definitions: { p: obj({ x: int }) },
    type: "array",
    items: { $ref: "#/definitions/p" },
    maxItems: 3,
  },
  "odd keys": obj({ 'say "hi"': int, "back\\slash": int, "naïve/é": bool, "": { type: "null" } }),
  "chat turns": list(obj({ role: { enum: ["user", "assistant"] }, content: short }), {
    minItems: 1,
    maxItems: 3,
  }),
  extraction: obj({
    entities: list(
      obj({
        text: short,
        type: { enum: ["PER", "ORG", "LOC"] },
        start: { type: "integer", minimum: 0 },
      }),
      { maxItems: 3 },
    ),
    language: { type: "string", pattern: "^[a-z]{2}$" },
  }),
  steps: obj({
    steps: list(obj({ explanation: short, output: short }), { maxItems: 3 }),
    final_answer: str,
  }),
  invoice: obj({
    number: { type: "string", pattern: "^INV-[0-9]{4}$" },
    lines: list(
      obj({
        sku: short,
        quantity: { type: "integer", minimum: 1 },
        price: { type: "number", minimum: 0 },
      }),
      { minItems: 1, maxItems: 2 },
    ),
    total: { type: "number", minimum: 0 },
  }),
};
