import type { Element } from '@xmldom/xmldom';
import { pause } from '../pause.ts';
import { isFault, VsphereAnswerInvalid, VsphereDenied, VsphereRefused, VsphereTimedOut } from '../vsphere-errors.ts';
import { property, readObject } from './properties.ts';
import { localizedFault, returnedBy } from './soap.ts';
import { booleanOf, childOf, childText, type Reference, referenceOf, type Xml } from './soap-xml.ts';
import type { VimSession } from './vim-session.ts';

/** What vSphere does in its own time. */

const pollFirstMs = 100;
const pollMaxMs = 2_000;

export interface TaskEnd {
  /** What the task made. Null also where vSphere forgot the task before its end was seen: then the machine has to be looked at. */
  readonly result: Reference | null;
  readonly forgotten: boolean;
}

/** Begins a task and waits for its end. `parameters`: in the order of the WSDL. Throws what the call does, and what `waitForTask` does. */
export async function runTask(
  session: VimSession,
  method: string,
  self: Reference,
  parameters: readonly Xml[],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<TaskEnd> {
  const response = await session.call(method, self, parameters, signal);
  const task = referenceOf(returnedBy(response, session.where));
  if (task === null) throw new VsphereAnswerInvalid(`${session.where}: ${method} named no task`);
  return await waitForTask(session, task, method, timeoutMs, signal);
}

/** `doing`: for messages. Throws VsphereRefused with the fault that the task ended with, VsphereDenied, or VsphereTimedOut. */
export async function waitForTask(
  session: VimSession,
  task: Reference,
  doing: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<TaskEnd> {
  const deadline = performance.now() + timeoutMs;
  for (let pauseMs = pollFirstMs; ; pauseMs = Math.min(pollMaxMs, pauseMs * 1.5)) {
    const info = await readTask(session, task, signal);
    if (info === null) return { result: null, forgotten: true };
    const state = childText(info, 'state')?.trim();
    if (state === 'success') return { result: referenceOf(childOf(info, 'result')), forgotten: false };
    if (state === 'error') throw failureOf(info, doing, session.where);
    if (performance.now() > deadline)
      throw new VsphereTimedOut(`${session.where}: ${doing} did not end within ${Math.round(timeoutMs / 1000)} s`);
    await pause(pauseMs, signal);
  }
}

/** What vSphere says of it; null where the task is not known any more. */
export async function readTask(session: VimSession, task: Reference, signal: AbortSignal): Promise<Element | null> {
  try {
    return property(await readObject(session, task, ['info'], signal), 'info');
  } catch (error) {
    if (isFault(error, 'ManagedObjectNotFound')) return null;
    throw error;
  }
}

function failureOf(info: Element, doing: string, where: string): Error {
  const error = childOf(info, 'error');
  const cancelled = booleanOf(childOf(info, 'cancelled')) === true ? ' (somebody cancelled it)' : '';
  if (error === null) return new VsphereAnswerInvalid(`${where}: ${doing} failed without a reason${cancelled}`);
  const detail = localizedFault(error);
  const says = `${where}: ${doing} failed: ${detail.fault}: ${detail.words}${cancelled}`;
  return detail.fault === 'NoPermission' ? new VsphereDenied(says) : new VsphereRefused(says, detail);
}
