import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { openLocalFile } from '../vhdx/local-file.ts';
import { HypervUnreachable } from './hyperv-errors.ts';
import type { HypervHost } from './hyperv-machine.ts';
import type { WorkerStreams } from './worker-client.ts';

/** The agent runs on the Hyper-V host itself: the worker is a child of it, and disks are files of this host. */

const workerScript = join(import.meta.dirname, 'hyperv-worker.ps1');
/** A script that was laid down with the agent; never a command line that is put together. */
const powershellArguments = [
  ...['-NoLogo', '-NoProfile', '-NonInteractive'],
  ...['-ExecutionPolicy', 'Bypass', '-File'],
];

export function localHost(name: string, powershell: string): HypervHost {
  return {
    name,
    open: async () => ({
      startWorker: () => startWorker(name, powershell),
      openFile: openLocalFile,
      isLost: () => false,
      [Symbol.asyncDispose]: async () => undefined,
    }),
  };
}

async function startWorker(name: string, powershell: string): Promise<WorkerStreams> {
  const child = spawn(powershell, [...powershellArguments, workerScript], {
    stdio: ['pipe', 'pipe', 'pipe'],
    windowsHide: true,
  });
  try {
    await once(child, 'spawn');
  } catch (cause) {
    throw new HypervUnreachable(
      `Hyper-V host ${name}: ${powershell} can't be started: run the agent on the Hyper-V host, or reach it by ssh`,
      { cause },
    );
  }
  return {
    ...{ input: child.stdin, output: child.stdout, complaints: child.stderr },
    kill: () => child.kill('SIGKILL'),
  };
}
