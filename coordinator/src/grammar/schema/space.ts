/** White space of the JSON that is written: one space, or a line's end and its indent; never without end. */
import { charsOf } from "../char-set.js";
import {
  alt,
  EMPTY,
  oneOf,
  optional,
  repeat,
  seq,
  text,
  type Expression,
  type RuleBook,
} from "../expression.js";

const INDENT_MAX = 32;

/** After `{`, `[` and `,`, before `}` and `]`. */
export function space(book: RuleBook): Expression {
  return book.rule("space", () =>
    alt(EMPTY, text(" "), seq(text("\n"), repeat(oneOf(charsOf(" \t")), 0, INDENT_MAX))),
  );
}

/** After a key. */
export const COLON = seq(text(":"), optional(text(" ")));
