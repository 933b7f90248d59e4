import { shareKey } from '../../crypto/shared-key.ts';
import type { EpochKeys } from '../../replica/key-ring.ts';

/** The keys that the workers need, on shared memory: one place to zero, no copy in any message. */
export class SharedKeys implements Disposable {
  readonly dataKey: Uint8Array;
  readonly saltKey: Uint8Array;
  readonly digestKey: Uint8Array;

  constructor(keys: EpochKeys) {
    this.dataKey = shareKey(keys.key.bytes);
    this.saltKey = shareKey(keys.machineKeys.saltKey);
    this.digestKey = shareKey(keys.machineKeys.digestKey);
  }

  [Symbol.dispose](): void {
    for (const key of [this.dataKey, this.saltKey, this.digestKey]) key.fill(0);
  }
}
