import type { EpochKeys } from '../../replica/key-ring.ts';

/** The keys that the workers need, on shared memory: one place to zero, no copy in any message. */
export class SharedKeys implements Disposable {
  readonly dataKey: Uint8Array;
  readonly saltKey: Uint8Array;
  readonly digestKey: Uint8Array;

  constructor(keys: EpochKeys) {
    this.dataKey = share(keys.key.bytes);
    this.saltKey = share(keys.machineKeys.saltKey);
    this.digestKey = share(keys.machineKeys.digestKey);
  }

  [Symbol.dispose](): void {
    for (const key of [this.dataKey, this.saltKey, this.digestKey]) key.fill(0);
  }
}

function share(key: Uint8Array): Uint8Array {
  const shared = new Uint8Array(new SharedArrayBuffer(key.length));
  shared.set(key);
  return shared;
}
