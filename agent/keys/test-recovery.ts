import { KeyRefused } from '../../crypto/errors.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import type { Session } from '../session.ts';
import { type KeyedMachine, openEpochs } from './keyed-machines.ts';

export interface TestedMachine {
  readonly machine: string;
  readonly epochs: readonly { readonly epoch: number; readonly refusal: string | null }[];
  /** The newest point, whose manifest was opened with the recovery key alone; null where there is none, or where it did not open. */
  readonly openedPoint: number | null;
}

/** Unwraps every epoch's data key with the recovery key alone and checks it against its record; then opens the newest point with it. */
export async function testRecovery(
  session: Session,
  machine: KeyedMachine,
  recovery: KeyProvider,
  signal: AbortSignal,
): Promise<TestedMachine> {
  const opened = await openEpochs(session, machine, [recovery], signal);
  using replica = opened.replica;
  const epochs: { epoch: number; refusal: string | null }[] = [];
  for (const epoch of opened.epochs) {
    const refusal = await refusalOf(() => replica.keys.epoch(epoch, signal));
    epochs.push({ epoch, refusal });
  }
  const newest = replica.points.at(-1) ?? null;
  const isOpened = newest !== null && (await refusalOf(() => replica.openPoint(newest, signal))) === null;
  return { machine: machine.name, epochs, openedPoint: isOpened ? newest : null };
}

async function refusalOf(open: () => Promise<unknown>): Promise<string | null> {
  try {
    await open();
    return null;
  } catch (error) {
    if (error instanceof KeyRefused) return error.message;
    throw error;
  }
}
