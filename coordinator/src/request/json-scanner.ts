/** One JSON object, character by character: whether what came so far can be one, and where it ends. */

const LITERAL = /^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)$/;
const LITERAL_CHARACTER = /[-+.0-9A-Za-z]/;

type State =
  /** Of the object itself: its brace. */
  | "begin"
  /** A value; `first`: or the end of an empty list. */
  | "value"
  | "first"
  /** A key; `firstKey`: or the end of an empty object. */
  | "key"
  | "firstKey"
  | "colon"
  /** Behind a value: a comma or the end of what holds it. */
  | "after"
  | "string"
  | "escape"
  | "hex"
  | "literal";

function isSpace(character: string): boolean {
  return character === " " || character === "\n" || character === "\t" || character === "\r";
}

export class JsonScanner {
  private state: State = "begin";
  /** What is open: an object's or a list's closing character. */
  private readonly open: ("}" | "]")[] = [];
  private literal = "";
  /** The string is a key. */
  private isKey = false;
  private hexLeft = 0;

  /** `bad`: nothing that begins so is JSON. After `done` or `bad` nothing more is taken. */
  push(character: string): "more" | "done" | "bad" {
    switch (this.state) {
      case "string":
        return this.inString(character);
      case "escape":
        this.hexLeft = 4;
        if (character === "u") return this.to("hex");
        return '"\\/bfnrt'.includes(character) ? this.to("string") : "bad";
      case "hex":
        if (!/[0-9a-fA-F]/.test(character)) return "bad";
        return --this.hexLeft === 0 ? this.to("string") : "more";
      case "literal":
        if (LITERAL_CHARACTER.test(character)) {
          this.literal += character;
          return "more";
        }
        if (!LITERAL.test(this.literal)) return "bad";
        this.state = "after";
        return this.between(character);
      default:
        return this.between(character);
    }
  }

  private to(state: State): "more" {
    this.state = state;
    return "more";
  }

  private inString(character: string): "more" | "bad" {
    if (character === "\\") return this.to("escape");
    if (character === '"') return this.to(this.isKey ? "colon" : "after");
    return character < " " ? "bad" : "more";
  }

  private between(character: string): "more" | "done" | "bad" {
    if (isSpace(character)) return "more";
    switch (this.state) {
      case "begin":
        return character === "{" ? this.enter("}") : "bad";
      case "key":
      case "firstKey":
        if (character === '"') return this.text(true);
        return character === "}" && this.state === "firstKey" ? this.leave() : "bad";
      case "colon":
        return character === ":" ? this.to("value") : "bad";
      case "after":
        if (character === this.open.at(-1)) return this.leave();
        if (character !== ",") return "bad";
        return this.to(this.open.at(-1) === "}" ? "key" : "value");
      default:
        return this.value(character);
    }
  }

  private value(character: string): "more" | "done" | "bad" {
    if (character === '"') return this.text(false);
    if (character === "{") return this.enter("}");
    if (character === "[") return this.enter("]");
    if (character === "]" && this.state === "first") return this.leave();
    if (!LITERAL_CHARACTER.test(character)) return "bad";
    this.literal = character;
    return this.to("literal");
  }

  private text(isKey: boolean): "more" {
    this.isKey = isKey;
    return this.to("string");
  }
  private enter(end: "}" | "]"): "more" {
    this.open.push(end);
    return this.to(end === "}" ? "firstKey" : "first");
  }
  private leave(): "more" | "done" {
    this.open.pop();
    return this.open.length === 0 ? "done" : this.to("after");
  }
}
