import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { toolEnvironment } from './nbdkit-process.ts';
import { NbdkitMissing, VddkMissing, VddkTransportMissing, VddkUnsuitable } from './vddk-errors.ts';
import type { VddkSettings } from './vddk-settings.ts';

/** nbdkit, its plugin and VDDK, as this host has them. */
export interface VddkHost {
  readonly nbdkitVersion: string;
  /** The file that was loaded, with the version in its name. */
  readonly library: string;
  readonly transports: readonly string[];
  /** It tells which parts of a disk were ever written. */
  readonly tellsAllocated: boolean;
}

const toolTimeoutMs = 30_000;
const wordsCharsMax = 500;
/** Of nbdkit: older ones end when a client goes away, and fail at disks whose size is no multiple of 64 KiB. */
const oldest = { major: 1, minor: 42 };
/** What that nbdkit looks for. */
const sonames = ['libvixDiskLib.so.8', 'libvixDiskLib.so.7', 'libvixDiskLib.so.6'];

/** Throws NbdkitMissing, VddkMissing, VddkUnsuitable or VddkTransportMissing: what stands in the way of every disk. */
export async function examineVddk(settings: VddkSettings, signal: AbortSignal): Promise<VddkHost> {
  const { nbdkit, libdir } = settings;
  const nbdkitVersion = await pluginVersion(nbdkit, signal);
  await findLibrary(libdir);
  const asked = await run(nbdkit, ['vddk', '--dump-plugin', `libdir=${libdir}`], signal);
  const told = valuesOf(asked.printed);
  // It ends well without a library that it could load, too.
  if (asked.failed || !told.has('vddk_library_version'))
    throw new VddkUnsuitable(`nbdkit can't load the VDDK in ${libdir}: is it for this kind of processor${asked.words}`);
  const transports = (told.get('vddk_transport_modes') ?? '').split(':').filter((name) => name !== '');
  if (!settings.transports.split(':').some((name) => transports.includes(name)))
    throw new VddkTransportMissing(
      `the VDDK in ${libdir} offers the transports ${transports.join(', ') || 'none'}, and ${settings.transports} is ` +
        'configured: name one that it has',
    );
  return {
    nbdkitVersion,
    library: told.get('vddk_dll') ?? libdir,
    transports,
    tellsAllocated: told.get('VixDiskLib_QueryAllocatedBlocks') === '1',
  };
}

async function pluginVersion(nbdkit: string, signal: AbortSignal): Promise<string> {
  const asked = await run(nbdkit, ['vddk', '--version'], signal);
  const install =
    'install nbdkit and nbdkit-plugin-vddk, 1.42 or newer: Debian 13, Ubuntu 25.04, RHEL 9 and Fedora have them';
  if (asked.failed) throw new NbdkitMissing(`${nbdkit} can't be used${asked.words}: ${install}`);
  const version = /\b(\d+)\.(\d+)\.\d+/.exec(asked.printed);
  const [major, minor] = [Number(version?.[1] ?? 0), Number(version?.[2] ?? 0)];
  if (major < oldest.major || (major === oldest.major && minor < oldest.minor))
    throw new NbdkitMissing(`${nbdkit} is too old (${asked.printed.slice(0, wordsCharsMax)}): ${install}`);
  return version?.[0] ?? '';
}

async function findLibrary(libdir: string): Promise<void> {
  const found = (await Promise.all([namesIn(join(libdir, 'lib64')), namesIn(libdir)])).flat();
  if (found.some((name) => sonames.includes(name))) return;
  const other = found.filter((name) => name.startsWith('libvixDiskLib.so')).sort()[0];
  if (other === undefined)
    throw new VddkMissing(
      `there is no VDDK in ${libdir}: unpack VMware's archive there, so that lib64/${sonames[0]} is in it`,
    );
  throw new VddkUnsuitable(
    `the VDDK in ${libdir} is ${other}, and nbdkit looks for ${sonames[0]}: use VDDK 8, or in lib64 run: ln -s ${other} ${sonames[0]}`,
  );
}

/** Of a folder that is not there: none. */
async function namesIn(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch {
    return [];
  }
}

interface Ended {
  readonly failed: boolean;
  readonly printed: string;
  /** What it says about itself, after a colon; empty where it says nothing. */
  readonly words: string;
}

async function run(tool: string, args: readonly string[], signal: AbortSignal): Promise<Ended> {
  const wordsOf = (text: string): string => (text.trim() === '' ? '' : `: ${text.trim().slice(0, wordsCharsMax)}`);
  const options = { signal, timeout: toolTimeoutMs, env: toolEnvironment };
  try {
    const { stdout, stderr } = await promisify(execFile)(tool, [...args], options);
    return { failed: false, printed: stdout, words: wordsOf(stderr) };
  } catch (cause) {
    signal.throwIfAborted();
    const isMissing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
    const stderr = cause instanceof Error && 'stderr' in cause ? String(cause.stderr) : '';
    return { failed: true, printed: '', words: wordsOf(isMissing ? 'it is not installed' : stderr) };
  }
}

function valuesOf(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split('\n').flatMap((line) => {
      const at = line.indexOf('=');
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)] as const];
    }),
  );
}
