import { StoreUnavailable, Unsupported } from './errors.ts';
import { isObjectName } from './object-name.ts';
import type { ListedObject, ListOptions } from './storage-target.ts';

/** A store may answer an empty page that is not the last; a store that does so for ever is broken. */
const emptyPagesMax = 100;

export interface ListPage {
  readonly objects: readonly ListedObject[];
  readonly nextToken: string | undefined;
}

export interface PageRequest {
  /** Only names greater than this one; empty: all. */
  readonly startAfter: string;
  readonly limit: number;
  /** Of the page before; then nothing else need be said. */
  readonly token: string | undefined;
}

/**
 * Page after page; a store that does not list in ascending order is found out, because all of ours relies on it. `ask` may
 * give what is no object of ours, and names up to `startAfter`.
 */
export async function* listPages(
  description: string,
  options: ListOptions,
  ask: (request: PageRequest) => Promise<ListPage>,
): AsyncGenerator<ListedObject> {
  let left = options.limit ?? Number.POSITIVE_INFINITY;
  const startAfter = options.startAfter ?? '';
  let last = '';
  let token: string | undefined;
  let emptyPages = 0;
  while (left > 0) {
    const page = await ask({ startAfter, limit: left, token });
    for (const object of page.objects) {
      // Consoles and other tools leave objects of their own, such as `folder/`; none of ours has such a name.
      if (!isObjectName(object.name)) continue;
      if (object.name <= last && last !== '') throw outOfOrder(description, object.name, last);
      last = object.name;
      if (object.name <= startAfter) continue;
      yield object;
      if (--left <= 0) return;
    }
    token = page.nextToken;
    if (token === undefined) return;
    if (page.objects.length === 0 && ++emptyPages > emptyPagesMax)
      throw new StoreUnavailable(`${description}: a listing of empty pages does not end`);
  }
}

function outOfOrder(description: string, name: string, last: string): Unsupported {
  return new Unsupported(
    `${description}: the store lists ${name} after ${last}; a store that does not list in order cannot be used`,
  );
}
