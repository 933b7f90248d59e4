import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KeyServiceUnavailable } from '../../crypto/errors.ts';
import type { KeyProvider } from '../../crypto/key-provider.ts';
import { createLocalKeyFile, openLocalKey } from '../../crypto/local-key.ts';
import { generateRecoveryKey } from '../../crypto/recovery-key.ts';
import { rootFingerprint } from '../../crypto/root-fingerprint.ts';
import { SigningKey } from '../../crypto/signing.ts';
import { createRepository } from '../../replica/create-repository.ts';
import { type OpenRepository, openRepository } from '../../replica/open-repository.ts';
import { MemoryStore, openMemoryTarget } from '../fakes/memory-target.ts';
import type { RigWorkers } from '../rig/rig-workers.ts';

/** One repository, with the clock and the key service that all of its machines share. */

const memoryFolder = '/dev/shm';
const never = new AbortController().signal;

export class Fleet implements AsyncDisposable {
  readonly store: MemoryStore;
  readonly workers: RigWorkers;
  readonly folder: string;
  readonly root = SigningKey.generate();
  readonly agent = SigningKey.generate();
  /** Thursday. */
  nowMs = Date.UTC(2026, 0, 1);
  keyServiceAway = false;
  keyServiceCalls = 0;
  readonly #key: KeyProvider;

  private constructor(workers: RigWorkers, objectLock: boolean, folder: string, key: KeyProvider) {
    this.workers = workers;
    this.folder = folder;
    this.#key = key;
    this.store = new MemoryStore({ objectLock });
    this.store.now = () => this.nowMs;
  }

  static async create(workers: RigWorkers, objectLock: boolean): Promise<Fleet> {
    const folder = mkdtempSync(join(existsSync(memoryFolder) ? memoryFolder : tmpdir(), 'failkit-fleet-'));
    await createLocalKeyFile(join(folder, 'local.key'));
    const fleet = new Fleet(workers, objectLock, folder, await openLocalKey(join(folder, 'local.key')));
    const { publicKey } = await generateRecoveryKey();
    const { root, agent, nowMs } = fleet;
    const fields = { root, recoveryPublicKey: publicKey, agents: [agent.publicKey], createdMs: nowMs };
    await createRepository(openMemoryTarget(fleet.store), fields, never);
    return fleet;
  }

  get provider(): KeyProvider {
    const asked =
      <Args extends unknown[], Result>(call: (...args: Args) => Promise<Result>) =>
      async (...args: Args): Promise<Result> => {
        this.keyServiceCalls++;
        if (this.keyServiceAway) throw new KeyServiceUnavailable('the key service gives no answer');
        return await call(...args);
      };
    const { generateDataKey, wrap, unwrap, ...rest } = this.#key;
    return { ...rest, generateDataKey: asked(generateDataKey), wrap: asked(wrap), unwrap: asked(unwrap) };
  }

  async open(target = openMemoryTarget(this.store)): Promise<OpenRepository> {
    return await openRepository(target, rootFingerprint(this.root.publicKey), never);
  }

  bytesUnder(prefix: string): number {
    const names = this.store.names.filter((name) => name.startsWith(prefix));
    return names.reduce((sum, name) => sum + this.store.read(name).bytes.length, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
