import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { replaceDurableFile } from '../durable-files.ts';
import { type EndedRun, endedRun, parseJson } from './run-record.ts';
import { inStateFolder, makeStateFolder } from './state-folder.ts';

/**
 * A run that failed before it came to any machine: the store or the key service was away, say. One small file for all
 * machines, because a fleet's states would take minutes to write.
 */
export interface FailedStart extends EndedRun {
  /** Null: all of the configuration. */
  readonly machines: readonly string[] | null;
}

const failedStart = endedRun.extend({ machines: z.array(z.string()).nullable() });

/** Throws StateDiskFull or StateUnusable. */
export function keepFailedStart(folder: string, start: FailedStart): void {
  makeStateFolder(folder);
  inStateFolder(folder, () => replaceDurableFile(fileIn(folder), `${JSON.stringify(start)}\n`));
}

/** Null where there is none, or none that can be read. */
export function readFailedStart(folder: string): FailedStart | null {
  try {
    return failedStart.safeParse(parseJson(readFileSync(fileIn(folder), 'utf8'))).data ?? null;
  } catch {
    // Missing as a rule; where the folder itself can't be read, the machines' own states say so.
    return null;
  }
}

function fileIn(folder: string): string {
  return join(folder, 'failed-start.json');
}
