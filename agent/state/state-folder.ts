import { chmodSync } from 'node:fs';
import { KeyFileUnusable } from '../../crypto/errors.ts';
import { makeDurableFolder } from '../durable-files.ts';
import { StateDiskFull, StateUnusable } from './errors.ts';

/** The folder with all that the agent keeps on this host. */

const privateMode = 0o700;

/** Makes it with mode 0700, durably, or closes to others what is there. Throws StateDiskFull or StateUnusable. */
export function makeStateFolder(folder: string): void {
  inStateFolder(folder, () => {
    makeDurableFolder(folder, privateMode);
    chmodSync(folder, privateMode);
  });
}

/** Does `work` on files in the folder, and names what the system says against it. */
export function inStateFolder<T>(folder: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw stateError(error, folder);
  }
}

export function stateError(error: unknown, folder: string): unknown {
  const told = error instanceof KeyFileUnusable ? error.cause : error;
  const code = told instanceof Error && 'code' in told && 'syscall' in told ? String(told.code) : null;
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new StateDiskFull(`the disk of ${folder} is full: free some space; nothing published is lost`, {
        cause: error,
      });
    case 'EEXIST':
    case 'ENOTDIR':
      return error instanceof KeyFileUnusable
        ? error
        : new StateUnusable(`${folder} is not a folder`, { cause: error });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
    case 'EIO':
      return new StateUnusable(`${folder} can't be read and written (${code}): check the disk and its permissions`, {
        cause: error,
      });
    default:
      return error;
  }
}
