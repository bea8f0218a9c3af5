/**
 * Formats of JSON Schema that are enforced, as patterns of a whole value; a pattern may be narrower than its format.
 * Lengths follow from them, so `maxLength` beside a format is understood.
 */
const DATE =
  "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])" +
  "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
const TIME =
  "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?" +
  "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
const LABEL = "[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?";
const HOST = `${LABEL}(?:\\.${LABEL}){0,3}`;
const BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const GROUP = "[0-9a-f]{1,4}";
const PATH = "(?:/[A-Za-z0-9._~-]{0,20}){0,4}";

export const FORMATS: Readonly<Record<string, string>> = {
  date: DATE,
  time: TIME,
  "date-time": `${DATE}T${TIME}`,
  duration:
    "P(?:[0-9]{1,4}W|(?:[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D)" +
    "(?:T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S))?" +
    "|T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S))",
  uuid: "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
  email: `[A-Za-z0-9_+-]{1,16}(?:\\.[A-Za-z0-9_+-]{1,8})?@${LABEL}(?:\\.${LABEL}){1,2}`,
  hostname: HOST,
  ipv4: `${BYTE}(?:\\.${BYTE}){3}`,
  ipv6: `(?:${GROUP}:){7}${GROUP}|::(?:${GROUP}:){0,5}${GROUP}|${GROUP}::(?:${GROUP}:){0,4}${GROUP}|::`,
  uri: `(?:https?|ftp)://${HOST}(?::[1-9][0-9]{0,3})?${PATH}(?:\\?[A-Za-z0-9=&_.-]{0,40})?(?:#[A-Za-z0-9_-]{0,20})?`,
};

/** Formats of the specification that are refused. A name that the specification does not have is an annotation. */
export const REFUSED_FORMATS: ReadonlySet<string> = new Set([
  "idn-email",
  "idn-hostname",
  "iri",
  "iri-reference",
  "json-pointer",
  "regex",
  "relative-json-pointer",
  "uri-reference",
  "uri-template",
]);
