import type { KeyContext } from './key-provider.ts';

const label = new TextEncoder().encode('failkit/v1/key-context\0');
const idBytes = 16;
const epochMax = 0xffff_ffff;

/** `failkit/v1/key-context` ‖ 0x00 ‖ repositoryId(16) ‖ machineId(16) ‖ epoch (u32, big-endian): AAD or OAEP label of a wrap. */
export function encodeKeyContext(context: KeyContext): Uint8Array {
  checkContext(context);
  const encoded = new Uint8Array(label.length + 2 * idBytes + 4);
  encoded.set(label, 0);
  encoded.set(context.repositoryId, label.length);
  encoded.set(context.machineId, label.length + idBytes);
  new DataView(encoded.buffer).setUint32(label.length + 2 * idBytes, context.epoch, false);
  return encoded;
}

/** The same facts as an AWS KMS encryption context, which CloudTrail logs in clear: opaque ids only. */
export function awsEncryptionContext(context: KeyContext): Record<string, string> {
  checkContext(context);
  return {
    app: 'failkit',
    format: '1',
    repository: hex(context.repositoryId),
    machine: hex(context.machineId),
    epoch: String(context.epoch),
  };
}

/** How an error message names what a wrap was made for. */
export function describeKeyContext(context: KeyContext): string {
  return `repository ${hex(context.repositoryId)}, machine ${hex(context.machineId)}, key epoch ${context.epoch}`;
}

function checkContext({ repositoryId, machineId, epoch }: KeyContext): void {
  if (repositoryId.length !== idBytes) throw new RangeError(`a repository id has 16 bytes, not ${repositoryId.length}`);
  if (machineId.length !== idBytes) throw new RangeError(`a machine id has 16 bytes, not ${machineId.length}`);
  if (!Number.isInteger(epoch) || epoch < 0 || epoch > epochMax)
    throw new RangeError(`a key epoch is an integer from 0 to ${epochMax}, not ${epoch}`);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
}
