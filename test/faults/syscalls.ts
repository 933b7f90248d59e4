/** Reading what strace recorded (`-f -xx`): each call with its arguments and its result, in the order of their ends. */

export interface Syscall {
  readonly name: string;
  readonly args: readonly string[];
  readonly result: number;
  /** Places in the recording. */
  readonly startedAt: number;
  readonly endedAt: number;
}

export function parseTrace(text: string): readonly Syscall[] {
  const unfinished = new Map<string, { readonly head: string; readonly startedAt: number }>();
  const calls: Syscall[] = [];
  for (const [at, line] of text.split('\n').entries()) {
    const [, thread = '', rest = ''] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    const begun = /^(.*) <unfinished \.\.\.>$/.exec(rest);
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    if (begun !== null) unfinished.set(thread, { head: begun[1] ?? '', startedAt: at });
    else if (resumed !== null) {
      const first = unfinished.get(thread);
      unfinished.delete(thread);
      calls.push(...parseCall((first?.head ?? '') + (resumed[1] ?? ''), first?.startedAt ?? at, at));
    } else calls.push(...parseCall(rest, at, at));
  }
  return calls;
}

/** Calls that failed changed nothing and are left out, like everything that is no call. */
function parseCall(text: string, startedAt: number, endedAt: number): readonly Syscall[] {
  const match = /^(\w+)\((.*)\)\s+=\s+(-?\d+)/.exec(text);
  if (match === null) return [];
  const [, name = '', args = '', result = ''] = match;
  if (Number(result) < 0) return [];
  return [{ name, args: splitArguments(args), result: Number(result), startedAt, endedAt }];
}

/** Strings are all hexadecimal, so that a comma always separates; those inside of brackets do not. */
function splitArguments(text: string): readonly string[] {
  const args: string[] = [''];
  let depth = 0;
  for (const part of text.split(/([[\]{},])/)) {
    if (part === '[' || part === '{') depth++;
    if (part === ']' || part === '}') depth--;
    if (part === ',' && depth === 0) args.push('');
    else args.push((args.pop() ?? '') + part);
  }
  return args.map((arg) => arg.trim());
}

/** Bytes of a string, or of all the strings of a vector. */
export function bytesOf(arg: string): Buffer {
  if (arg.includes('...')) throw new Error('a string was cut short in the recording');
  return Buffer.concat([...arg.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map(([, hex = '']) => fromHex(hex)));
}

function fromHex(escaped: string): Buffer {
  return Buffer.from(escaped.replaceAll('\\x', ''), 'hex');
}
