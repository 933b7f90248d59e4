import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Changes one place of the product's text, which must be there exactly once. */
export interface Edit {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export interface Variant extends AsyncDisposable {
  readonly simulate: typeof import('./simulate.ts').simulate;
  readonly simulateOn: typeof import('./simulate-on-store.ts').simulateOn;
}

const root = join(import.meta.dirname, '../..');
/** Everything that a simulation loads, so that the copy shares no module with the original. */
const parts = [
  'agent/protect/lock-points.ts',
  'replica',
  'crypto',
  'storage-targets',
  'test/fakes',
  'test/protocol',
  'test/random.ts',
];

/** Loads the simulation over a copy of the product whose text was changed. */
export async function loadVariant(edits: readonly Edit[]): Promise<Variant> {
  const folder = mkdtempSync(join(tmpdir(), 'failkit-variant-'));
  await using made = new AsyncDisposableStack();
  made.defer(() => rm(folder, { recursive: true, force: true }));
  for (const name of parts) cpSync(join(root, name), join(folder, name), { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  for (const edit of edits) applyEdit(folder, edit);
  const module: typeof import('./simulate.ts') = await import(join(folder, 'test/protocol/simulate.ts'));
  const onStore: typeof import('./simulate-on-store.ts') = await import(
    join(folder, 'test/protocol/simulate-on-store.ts')
  );
  const kept = made.move();
  return {
    simulate: module.simulate,
    simulateOn: onStore.simulateOn,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function applyEdit(folder: string, { file, find, replace }: Edit): void {
  const path = join(folder, file);
  const parts = readFileSync(path, 'utf8').split(find);
  if (parts.length !== 2) {
    throw new Error(
      `${file} holds ${parts.length - 1} times, not once: ${find}\nThe code has changed: adapt the mutant.`,
    );
  }
  writeFileSync(path, parts.join(replace));
}

/**
 * Not mutants: the same code with small numbers, so that short histories meet summaries and control objects, with each
 * signature that was made here known to be good, and with nonces that a cloned host repeats.
 */
export const smallNumbers: readonly Edit[] = [
  {
    file: 'replica/chain-entry.ts',
    find: 'export const summaryInterval = 64;',
    replace: 'export const summaryInterval = 4;',
  },
  {
    file: 'replica/chain-entry.ts',
    find: 'export const inlineControlBytesMax = 65_536;',
    replace: 'export const inlineControlBytesMax = 300;',
  },
  {
    file: 'replica/tenure.ts',
    find: '{ agent, timeMs: now(), announce: (next) => mark.pending(next) }',
    replace: '{ ...this.#options, timeMs: now(), announce: (next) => mark.pending(next) }',
  },
  {
    file: 'replica/write-entry.ts',
    find: 'nonce: randomBytes(16)',
    replace: 'nonce: (writer as { nonce?: () => Uint8Array }).nonce?.() ?? randomBytes(16)',
  },
  {
    file: 'crypto/signing.ts',
    find: '    return this.#algorithm.sign(signedBytes(domain, this.publicKey.algorithm, message), this.#key);',
    replace: `    const signature = this.#algorithm.sign(signedBytes(domain, this.publicKey.algorithm, message), this.#key);
    if (verified.size > 20_000) verified.clear();
    verified.set(memoKey(this.publicKey, domain, message, signature), true);
    return signature;`,
  },
  {
    file: 'crypto/signing.ts',
    find: 'const good = algorithm.verify(',
    replace: 'const good = verified.get(memoKey(publicKey, domain, message, signature)) ?? algorithm.verify(',
  },
  {
    file: 'crypto/signing.ts',
    find: '/** A live private key. It leaves the process only through `exportPem`. */',
    replace: `const verified = new Map<string, boolean>();
function memoKey(key: PublicKey, domain: string, message: Uint8Array, signature: Uint8Array): string {
  const parts = [key.bytes, message, signature].map((part) => Buffer.from(part).toString('latin1'));
  return [domain, ...parts].join('|');
}
/** A live private key. It leaves the process only through \`exportPem\`. */`,
  },
];
