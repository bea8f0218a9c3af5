/** What is not shown. */

const SECRET = /(^|-)(api-key|password|secret|token)$/;
const HIDDEN = "***";

/** A setting's text as it may be shown: secrets are hidden, and passwords and tokens in URLs. */
export function shown(name: string, text: string): string {
  if (SECRET.test(name)) return HIDDEN;
  return text.replace(/(\w:\/\/)([^/@\s,]+)@/g, (_, scheme: string, user: string) => {
    const [first = ""] = user.split(":");
    return user.includes(":") ? `${scheme}${first}:${HIDDEN}@` : `${scheme}${HIDDEN}@`;
  });
}
