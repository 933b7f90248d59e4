import type { SnapshotDisk, VsphereLogin } from '../disk-reader.ts';
import type { Messages } from './messages.ts';
import { VddkFailed, VddkHostUnreachable, VddkLoginRefused, VddkThumbprintRefused } from './vddk-errors.ts';

/** VDDK's numbers, of which nbdkit passes on no more than their words. See "Finding Error Code Documentation" of the VDDK guide. */
const vix = {
  notFound: 4,
  notSupported: 6,
  noAccess: 13,
  noPermission: 3014,
  loginRefused: 35,
  refused: 14_009,
  cantConnect: 18_000,
} as const;

/** The error that names the cause of a disk that did not open, or whose reads fail. */
export function explainFailure(
  messages: Messages,
  login: VsphereLogin,
  disk: SnapshotDisk,
  what: string,
  cause: unknown,
): Error {
  const told = messages.words();
  const words = told === '' ? '' : `: ${told}`;
  const at = `${disk.file} through VDDK at ${login.host}`;
  switch (messages.vixError) {
    case vix.noPermission:
    case vix.loginRefused:
      return new VddkLoginRefused(
        `${at}: user ${login.user} was refused: check the password and the privileges of the role${words}`,
        { cause },
      );
    case vix.refused:
      return new VddkHostUnreachable(
        `${at}: the host that has the disk did not answer: open port 902 from here to every ESXi host${words}`,
        { cause },
      );
    case vix.cantConnect:
      return new VddkThumbprintRefused(
        `${at}: VDDK could not connect: it checks the server by its thumbprint, and its version may want another hash${words}`,
        { cause },
      );
    case vix.notFound:
      return new VddkFailed(`${at}: the disk is not there: was its snapshot removed${words}`, { cause });
    default:
      return new VddkFailed(`${at}: ${what}${words}`, { cause });
  }
}
