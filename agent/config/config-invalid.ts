/** One thing that is wrong with the configuration. Never holds the value of a secret. */
export interface ConfigProblem {
  /** Null when it is about the file as a whole. */
  readonly line: number | null;
  /** As in `machines[0].source.disks[1].path`; empty for the document. */
  readonly key: string;
  readonly what: string;
}

const problemsShownMax = 20;

/** The configuration can't be used. Lists everything that is wrong with it, each with its line. */
export class ConfigInvalid extends Error {
  readonly code = 'CONFIG_INVALID';
  override readonly name = 'ConfigInvalid';
  readonly file: string;
  readonly problems: readonly ConfigProblem[];

  constructor(file: string, problems: readonly ConfigProblem[], options?: { readonly cause?: unknown }) {
    super(describeProblems(file, problems), options);
    this.file = file;
    this.problems = problems;
  }
}

/** There is no configuration at all: whoever sees this may be new here. */
export class ConfigNotFound extends Error {
  readonly code = 'CONFIG_NOT_FOUND';
  override readonly name = 'ConfigNotFound';
}

function describeProblems(file: string, problems: readonly ConfigProblem[]): string {
  const lines = problems.slice(0, problemsShownMax).map((problem) => describeProblem(file, problem));
  const [only] = lines;
  if (lines.length === 1 && only !== undefined) return only;
  if (problems.length > problemsShownMax) lines.push(`and ${problems.length - problemsShownMax} more`);
  return [`the configuration has ${problems.length} problems:`, ...lines.map((line) => `  ${line}`)].join('\n');
}

function describeProblem(file: string, { line, key, what }: ConfigProblem): string {
  return [line === null ? file : `${file}:${line}`, key, what].filter((part) => part !== '').join(': ');
}
