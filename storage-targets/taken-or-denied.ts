import { AccessDenied, Immutable, ObjectExists, ObjectNotFound } from './errors.ts';

/**
 * Credentials that may create but not overwrite are told "denied" by some stores where the name is taken, before the
 * condition of the put is looked at; and whoever puts the name of a locked object may be told of its lock. Whether the
 * name is there tells which it was.
 */
export async function takenOrDenied(error: unknown, name: string, look: () => Promise<unknown>): Promise<unknown> {
  if (!(error instanceof AccessDenied || error instanceof Immutable)) return error;
  try {
    await look();
  } catch (missing) {
    if (missing instanceof ObjectNotFound || missing instanceof AccessDenied) return error;
    throw missing;
  }
  return new ObjectExists(`${name} exists already, and may not be overwritten`, { cause: error });
}
