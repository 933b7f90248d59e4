import { createCipheriv, createHash } from 'node:crypto';
import { encodeKeyContext } from '../../crypto/key-context.ts';
import { toHex } from '../../replica/encoding.ts';
import { joined } from './damage.ts';
import { context, filled, rootKey } from './specimens.ts';
import { ids, keyed, type VectorCase, withBroken } from './vector-case.ts';

/** Derivation, digests, signatures and wraps: sections 2 and 5. */

export function cryptography(): readonly VectorCase[] {
  const labels = [
    ['failkit/v1/data-key-commitment', '', 32],
    ['failkit/v1/key-record-mac', '', 32],
    ['failkit/v1/machine-keys', '00000002', 32],
    ['failkit/v1/segment', '4d'.repeat(32), 76],
    ['failkit/v1/manifest', '4d'.repeat(32), 76],
  ] as const;
  const derivations = labels.map(
    ([label, contextHex, length]): VectorCase => ({
      name: `derive-${label.slice(label.lastIndexOf('/') + 1)}`,
      about: `derive("${label}", context, ${length})`,
      section: '2',
      kind: 'derive',
      given: { ...keyed, label, context: contextHex, length },
    }),
  );
  const digest: VectorCase = {
    name: 'block-digest',
    about: 'The digest of a block. Real blocks have 64 KiB and more.',
    section: '2',
    kind: 'block-digest',
    given: { digestKey: '09'.repeat(32), block: toHex(filled(64, 0x6c)) },
  };
  return [...derivations, digest, ...signatures()];
}

function signatures(): readonly VectorCase[] {
  const key = toHex(rootKey.publicKey.bytes);
  const message = Buffer.from('a message');
  const signature = rootKey.sign('failkit/v1/trust', message);
  const about = 'Key id and fingerprint of an Ed25519 public key (seed: 32 times 0xa1).';
  const publicKey: VectorCase = {
    name: 'public-key',
    about,
    section: '2',
    kind: 'public-key',
    given: { publicKey: key },
  };
  const good: VectorCase = {
    name: 'signature',
    about: 'An Ed25519 signature over domain, algorithm and message.',
    section: '2',
    kind: 'signature',
    given: { publicKey: key, domain: 'failkit/v1/trust', message: toHex(message), signature: toHex(signature) },
  };
  return [
    publicKey,
    ...withBroken(good, {
      domain: ['The same signature under another domain.', { domain: 'failkit/v1/chain-entry' }],
      message: ['The same signature for another message.', { message: toHex(Buffer.from('another message')) }],
      'small-order-key': [
        'A public key of small order, under which one signature fits many messages.',
        { publicKey: `01${'00'.repeat(31)}` },
      ],
    }),
  ];
}

export function localWrap(): readonly VectorCase[] {
  const key = filled(32, 0x5a);
  const keyId = createHash('sha256').update('failkit/v1/local-key-id\0').update(key).digest('hex').slice(0, 16);
  const seal = createCipheriv('aes-256-gcm', key, filled(12, 0x5b), { authTagLength: 16 });
  seal.setAAD(encodeKeyContext(context));
  const wrapped = joined([1], filled(12, 0x5b), seal.update(filled(32, 0x07)), seal.final(), seal.getAuthTag());
  const keyFile = `failkit-local-key 1\nkey-id local:${keyId}\nkey ${Buffer.from(key).toString('base64')}\n`;
  const good: VectorCase = {
    name: 'local-key-wrap',
    about: 'A data key under the key of a local key file.',
    section: '5',
    kind: 'local-key-wrap',
    given: { ...ids, epoch: context.epoch, keyFile, wrapped: toHex(wrapped) },
  };
  return withBroken(good, {
    epoch: ['The same wrap for another key epoch: another key context.', { epoch: 4 }],
    altered: [
      'One bit of the wrap flipped.',
      { wrapped: toHex(joined(wrapped.subarray(0, 60), [(wrapped[60] ?? 0) ^ 1])) },
    ],
  });
}
