import { type BigIntStats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { codeOf } from './remedy.ts';

/** What tells one state of a file from another without reading it: differs after every change; also tells that there is no file. */

export async function fileStateOf(file: string): Promise<string> {
  return await stat(file, { bigint: true }).then(stateFrom, stateWithout);
}

export function fileStateNow(file: string): string {
  try {
    return stateFrom(statSync(file, { bigint: true }));
  } catch (error) {
    return stateWithout(error);
  }
}

function stateFrom({ mtimeNs, ctimeNs, size, ino, dev }: BigIntStats): string {
  return [mtimeNs, ctimeNs, size, ino, dev].join(' ');
}

function stateWithout(error: unknown): string {
  return codeOf(error) ?? 'unreadable';
}
