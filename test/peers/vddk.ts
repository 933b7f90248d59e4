/** nbdkit with its real VDDK plugin, and our stand-in for the library that VMware does not let anybody pass on (recipes/vddk/stand-in.c). */
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { peerFolder, peerNeeds } from './server-process.ts';
import type { Vcsim } from './vcsim.ts';

/** What is missing, or null. */
export const vddkNeeds = () => peerNeeds('vddk');

export interface StandInSettings {
  readonly root?: string;
  readonly user?: string;
  readonly password?: string;
  /** SHA-1, as VDDK has it: `AA:BB:…`. */
  readonly thumbprint?: string;
  readonly transports?: string;
  /** The host's port does not answer. */
  readonly reachable?: 'no';
  readonly 'read-latency-us'?: number;
  /** The nth read of an open disk fails. */
  readonly 'fail-read'?: number;
  /** Only where this file is not there yet; it is made then. */
  readonly 'fail-once'?: string;
}

export interface StandInVddk extends AsyncDisposable {
  readonly libdir: string;
  /** nbdkit of Debian 13. */
  readonly nbdkit: string;
  /** Of the calls that it got, in order. */
  calls(): readonly string[];
  /** For processes that start from now on. */
  set(settings: StandInSettings): Promise<void>;
}

/** `soname`: the version of the library that is to be found in the folder. */
export async function makeStandInVddk(
  settings: StandInSettings,
  { soname = 'libvixDiskLib.so.8' }: { readonly soname?: string } = {},
): Promise<StandInVddk> {
  const libdir = await mkdtemp(join(tmpdir(), 'failkit-vddk-'));
  const log = join(libdir, 'calls');
  await mkdir(join(libdir, 'lib64'));
  await symlink(join(peerFolder('vddk'), 'vddk/lib64/libvixDiskLib.so.8'), join(libdir, 'lib64', soname));
  const set = (now: StandInSettings): Promise<void> => {
    const lines = Object.entries({ ...now, log }).map(([key, value]) => `${key}=${value}\n`);
    return writeFile(join(libdir, 'stand-in.conf'), lines.join(''), { mode: 0o600 });
  };
  await set(settings);
  return {
    ...{ libdir, set, nbdkit: join(peerFolder('vddk'), 'nbdkit') },
    calls: () => (existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : []),
    [Symbol.asyncDispose]: () => rm(libdir, { recursive: true, force: true }),
  };
}

/** What a VDDK that talks to that vCenter would accept and serve. */
export function standInFor({ pointsFolder, user, password, certificate }: Vcsim): StandInSettings {
  const { fingerprint } = new X509Certificate(readFileSync(certificate.certFile));
  return { root: pointsFolder, user, password, thumbprint: fingerprint };
}
