/** What is not shown. */

const SECRET = /(^|-)(api-key|password|secret|token)$/;
const HIDDEN = "***";
/** A URL's parameter of such a name, up to its value. */
const SECRET_PARAMETER = /([?&][\w.-]*(?:key|password|secret|token)=)[^&#\s"]*/gi;

/** A setting's text, or what is said of it, as it may be shown: secrets are hidden, passwords and tokens in URLs too. */
export function shown(name: string, text: string): string {
  if (SECRET.test(name)) return HIDDEN;
  const parameters = text.replace(SECRET_PARAMETER, (_, start: string) => `${start}${HIDDEN}`);
  return parameters.replace(/(\w:\/\/)([^/@\s,]+)@/g, (_, scheme: string, user: string) => {
    const [first = ""] = user.split(":");
    return user.includes(":") ? `${scheme}${first}:${HIDDEN}@` : `${scheme}${HIDDEN}@`;
  });
}
