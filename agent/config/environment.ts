/** The process's environment variables, read in one place only: nothing else in the code may depend on them unseen. */
export type Environment = Readonly<Record<string, string | undefined>>;

export function processEnvironment(): Environment {
  return process.env;
}
