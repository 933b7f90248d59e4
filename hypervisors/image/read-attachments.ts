import { basename } from 'node:path';
import { SourceNotFound } from '../errors.ts';
import type { Attachment } from '../hypervisor.ts';
import { type ChangeWatch, watchFile } from './change-watch.ts';
import { openQuietly, whyNot } from './open-raw-disk.ts';

/** UEFI variables have some hundred KiB, a domain XML some ten. A disk listed by mistake must not be read whole. */
const attachmentBytesMax = 16 * 1024 * 1024;
const attachmentName = /^[A-Za-z0-9._-]{1,100}$/;

export interface CapturedAttachment {
  readonly attachment: Attachment;
  readonly place: string;
  readonly watch: ChangeWatch;
}

/** Reads one file whole. Throws SourceNotFound when it is missing, not a plain file, too large or badly named. */
export async function readAttachment(machine: string, path: string, signal: AbortSignal): Promise<CapturedAttachment> {
  const refuse = (why: string, cause?: unknown) =>
    new SourceNotFound(`attachment of machine ${machine}: ${path} ${why}`, { cause });
  const name = basename(path);
  if (!attachmentName.test(name))
    throw refuse('has a name with other characters than A-Z a-z 0-9 . _ - or over 100 of them: rename or link it');
  await using handle = await openQuietly(path).catch((cause: unknown) => {
    throw refuse(whyNot(cause), cause);
  });
  const stats = await handle.stat({ bigint: true });
  if (!stats.isFile()) throw refuse('is not a plain file');
  if (stats.size > attachmentBytesMax)
    throw refuse(`has ${stats.size} bytes, an attachment has at most ${attachmentBytesMax}: list disks under disks`);
  const watch = await watchFile(path, stats, signal);
  return { attachment: { name, bytes: new Uint8Array(await handle.readFile()) }, place: path, watch };
}
