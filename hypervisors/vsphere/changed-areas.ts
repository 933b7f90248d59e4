import { returnedBy } from './vim25/soap.ts';
import type { Reference } from './vim25/soap-xml.ts';
import { childOf, childrenOf, integerOf, referenceTag, tag } from './vim25/soap-xml.ts';
import type { VimSession } from './vim25/vim-session.ts';
import { VsphereAnswerInvalid } from './vsphere-errors.ts';

/** What changed on a disk, window by window, until all of it is covered. */

export interface ChangedAreasQuestion {
  readonly machine: Reference;
  readonly snapshot: Reference;
  readonly deviceKey: number;
  readonly capacityBytes: number;
  /** Since this moment; `*`: whatever was ever written. */
  readonly changeId: string;
}

export interface Area {
  readonly offset: number;
  readonly length: number;
}

/** A host looks through the whole record of a large disk before it answers, and a busy one takes minutes for that. */
const answerTimeoutMs = 10 * 60 * 1000;
/** Far above what a disk of 64 TiB takes. */
const windowsMax = 1_000_000;

/**
 * Ascending, disjoint, inside the capacity. An answer covers a window that the server chooses, and a window without a change is no end.
 * Throws VsphereAnswerInvalid for a window that is not where it was asked for, does not advance, or holds areas that can't be.
 */
export async function* changedAreas(
  session: VimSession,
  question: ChangedAreasQuestion,
  signal: AbortSignal,
): AsyncGenerator<Area> {
  const { machine, snapshot, deviceKey, capacityBytes, changeId } = question;
  let at = 0;
  for (let window = 0; at < capacityBytes; window++) {
    if (window === windowsMax) throw invalid(session, `more than ${windowsMax} windows`);
    const parameters = [
      referenceTag('snapshot', snapshot),
      tag('deviceKey', String(deviceKey)),
      tag('startOffset', String(at)),
      tag('changeId', changeId),
    ];
    const options = { repeatable: true, timeoutMs: answerTimeoutMs };
    const response = await session.call('QueryChangedDiskAreas', machine, parameters, signal, options);
    const info = returnedBy(response, session.where);
    const start = integerOf(childOf(info, 'startOffset'));
    const length = integerOf(childOf(info, 'length'));
    if (start !== at) throw invalid(session, `a window at ${start}, asked at ${at}`);
    if (length === null || length <= 0) throw invalid(session, `a window of ${length} bytes at ${at}`);
    const end = at + length;
    if (end > capacityBytes) throw invalid(session, `a window up to ${end} of a disk with ${capacityBytes} bytes`);
    let last = at;
    for (const area of childrenOf(info, 'changedArea')) {
      const offset = integerOf(childOf(area, 'start'));
      const bytes = integerOf(childOf(area, 'length'));
      if (offset === null || bytes === null || bytes <= 0 || offset < last || offset + bytes > end)
        throw invalid(
          session,
          `an area of ${bytes} bytes at ${offset} in the window from ${at} to ${end}, after ${last}`,
        );
      last = offset + bytes;
      yield { offset, length: bytes };
    }
    at = end;
  }
}

function invalid({ where }: VimSession, what: string): VsphereAnswerInvalid {
  return new VsphereAnswerInvalid(`${where}: its list of changed areas has ${what}`);
}
