import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CommitmentMismatch, RecordTampered, SignatureInvalid } from '../../crypto/errors.ts';
import { keyIdOf, SigningKey } from '../../crypto/signing.ts';
import { sha256 } from '../../crypto/suite.ts';
import {
  checkEntrySignature,
  type EntryBody,
  type EntryFields,
  encodeEntry,
  parseEntry,
} from '../../replica/chain-entry.ts';
import { toHex } from '../../replica/encoding.ts';
import { checkKeyRecordSigner, encodeKeyRecord, openKeyRecord, parseKeyRecord } from '../../replica/key-record.ts';
import { encodeRepository, parseRepository, type Repository } from '../../replica/repository.ts';
import {
  type AgentTrust,
  checkTrustHistory,
  encodeTrust,
  parseTrust,
  replaceRoot,
  type TrustStatement,
} from '../../replica/trust.ts';
import { timesTried } from '../lanes/quick.ts';
import { anyId, anyNumber, anyText, bytesOf } from './arbitrary.ts';
import { everyDamage, everyLie, refusal } from './damage.ts';
import {
  agentKey,
  bodies,
  context,
  createdMs,
  dataKey,
  entryFields,
  filled,
  keyRecordFields,
  machineId,
  machineKeys,
  newRootKey,
  otherAgentKey,
  repositoryId,
  rootKey,
} from './specimens.ts';

const refused = ['FORMAT_INVALID', 'SIGNATURE_INVALID'];

/** Hurts a signed object in every way: each must be refused by name, and both names must occur. */
function expectNeverRead(whole: Uint8Array, read: (bytes: Uint8Array) => unknown): void {
  expect(() => read(whole)).not.toThrow();
  const codes = new Set<string>();
  for (const { what, bytes } of everyDamage(whole)) codes.add(refusal(() => read(bytes), what));
  for (const { what, bytes } of everyLie(whole)) codes.add(refusal(() => read(bytes), what));
  expect([...codes].sort()).toEqual(refused);
}

describe('a repository descriptor', () => {
  const repository: Repository = { repositoryId, createdMs, firstRoot: rootKey.publicKey };

  it('comes back as it was written', () => {
    fc.assert(
      fc.property(anyId, anyNumber, (id, created) => {
        const value = { repositoryId: id, createdMs: created, firstRoot: rootKey.publicKey };
        const bytes = encodeRepository(value, rootKey);
        expect(parseRepository(bytes)).toEqual(value);
        expect(toHex(encodeRepository(parseRepository(bytes), rootKey))).toBe(toHex(bytes));
      }),
      { numRuns: timesTried(30) },
    );
  });

  it('is never read once it was damaged, nor when another key signed it', () => {
    expectNeverRead(encodeRepository(repository, rootKey), parseRepository);
    expect(() => parseRepository(encodeRepository(repository, newRootKey))).toThrow(SignatureInvalid);
  });
});

const firstTrust: TrustStatement = {
  repositoryId,
  n: 0,
  previous: new Uint8Array(32),
  createdMs,
  root: rootKey.publicKey,
  lineage: [],
  recoveryPublicKey: filled(40, 0x30),
  agents: [{ key: agentKey.publicKey, revoked: null }],
  retentionFloorDays: 30,
};

/** Statement 7, under a replaced root: an agent in force and one revoked for two machines. */
const laterTrust: TrustStatement = {
  ...firstTrust,
  n: 7,
  previous: filled(32, 0x61),
  root: newRootKey.publicKey,
  lineage: [replaceRoot(repositoryId, rootKey, newRootKey.publicKey)],
  agents: [
    { key: agentKey.publicKey, revoked: null },
    {
      key: otherAgentKey.publicKey,
      revoked: [
        { machineId, lastSeq: 300, digest: filled(32, 0x62) },
        { machineId: filled(16, 0x23), lastSeq: 1, digest: filled(32, 0x63) },
      ],
    },
  ],
};

describe('a trust statement', () => {
  const anyCutoff = fc.record({ machineId: anyId, lastSeq: fc.integer({ min: 1 }), digest: bytesOf(32) });
  const anyAgents: fc.Arbitrary<readonly AgentTrust[]> = fc
    .uniqueArray(bytesOf(32), { maxLength: 4, selector: toHex })
    .chain((seeds) =>
      fc.tuple(
        ...seeds.map((bytes) =>
          fc
            .option(fc.uniqueArray(anyCutoff, { maxLength: 3, selector: (cutoff) => toHex(cutoff.machineId) }))
            .map((revoked) => ({ key: { algorithm: 1, bytes }, revoked })),
        ),
      ),
    );

  it('comes back as it was written, agents by key id and machines by id', () => {
    fc.assert(
      fc.property(fc.nat({ max: 5 }), anyNumber, anyAgents, fc.nat(), (n, created, agents, retentionFloorDays) => {
        const previous = n === 0 ? firstTrust.previous : laterTrust.previous;
        const value: TrustStatement = { ...firstTrust, n, previous, createdMs: created, agents, retentionFloorDays };
        const bytes = encodeTrust(value, rootKey);
        const { digest, ...parsed } = parseTrust(n, repositoryId, bytes);
        expect(toHex(digest)).toBe(toHex(sha256(bytes)));
        expect(toHex(encodeTrust(parsed, rootKey))).toBe(toHex(bytes));
        const ids = parsed.agents.map(({ key }) => toHex(keyIdOf(key)));
        expect(ids).toEqual([...ids].sort());
        expect({ ...parsed, agents: [] }).toEqual({ ...value, agents: [] });
        expect(new Set(ids)).toEqual(new Set(agents.map(({ key }) => toHex(keyIdOf(key)))));
      }),
      { numRuns: timesTried(60) },
    );
  });

  it('is never read once it was damaged, nor in another place', () => {
    const whole = encodeTrust(laterTrust, newRootKey);
    expectNeverRead(whole, (bytes) => parseTrust(7, repositoryId, bytes));
    expect(refusal(() => parseTrust(8, repositoryId, whole), 'another number')).toBe('FORMAT_INVALID');
    expect(refusal(() => parseTrust(7, filled(16, 1), whole), 'another repository')).toBe('FORMAT_INVALID');
    expect(refusal(() => parseTrust(7, repositoryId, encodeTrust(laterTrust, rootKey)), 'the old root')).toBe(
      'SIGNATURE_INVALID',
    );
  });

  it('names no predecessor when it is the first, and keys that are keys', () => {
    const written = (change: Partial<TrustStatement>) => () =>
      parseTrust(0, repositoryId, encodeTrust({ ...firstTrust, ...change }, rootKey));
    expect(refusal(written({ previous: filled(32, 1) }), 'a predecessor')).toBe('FORMAT_INVALID');
    const short = { key: { algorithm: 1, bytes: filled(31, 1) }, revoked: null };
    expect(refusal(written({ root: { algorithm: 1, bytes: filled(33, 1) } }), 'a long root')).toBe('FORMAT_INVALID');
    expect(() => encodeTrust({ ...firstTrust, agents: [short, ...firstTrust.agents] }, rootKey)).toThrow(
      SignatureInvalid,
    );
  });
});

describe('the history of trust', () => {
  const repository: Repository = { repositoryId, createdMs, firstRoot: rootKey.publicKey };
  const third = SigningKey.generate();

  /** Signs statements one after another, each on the one before. */
  function history(...steps: readonly { readonly lineage?: TrustStatement['lineage']; readonly root: SigningKey }[]) {
    const statements: ReturnType<typeof parseTrust>[] = [];
    for (const { lineage, root } of steps) {
      const [n, before] = [statements.length, statements.at(-1)];
      const fields = { ...firstTrust, n, previous: before?.digest ?? new Uint8Array(32), root: root.publicKey };
      statements.push(parseTrust(n, repositoryId, encodeTrust({ ...fields, lineage: lineage ?? [] }, root)));
    }
    return statements;
  }
  const toNew = replaceRoot(repositoryId, rootKey, newRootKey.publicKey);
  const toThird = replaceRoot(repositoryId, newRootKey, third.publicKey);

  it('is accepted when each statement follows from the one before', () => {
    const steps = [
      { root: rootKey },
      { root: rootKey },
      { root: newRootKey, lineage: [toNew] },
      { root: third, lineage: [toNew, toThird] },
    ];
    expect(() => checkTrustHistory(repository, history(...steps))).not.toThrow();
  });

  it.each([
    [
      'a replaced root that writes itself back in',
      [{ root: rootKey }, { root: newRootKey, lineage: [toNew] }, { root: rootKey }],
    ],
    [
      'a replaced root that names another successor',
      [
        { root: rootKey },
        { root: newRootKey, lineage: [toNew] },
        { root: third, lineage: [replaceRoot(repositoryId, rootKey, third.publicKey)] },
      ],
    ],
    ['a root of nowhere', [{ root: newRootKey }]],
    ['two replacements in one step', [{ root: rootKey }, { root: third, lineage: [toNew, toThird] }]],
    [
      'a root that comes back',
      [
        { root: rootKey },
        { root: newRootKey, lineage: [toNew] },
        { root: rootKey, lineage: [toNew, replaceRoot(repositoryId, newRootKey, rootKey.publicKey)] },
      ],
    ],
  ])('refuses %s', (_, steps) => {
    expect(() => checkTrustHistory(repository, history(...steps))).toThrow(
      expect.objectContaining({ code: 'TRUST_BROKEN' }),
    );
  });

  it('refuses a replacement that the old root did not sign, or signed for another repository', () => {
    const forged = { ...toNew, signature: replaceRoot(repositoryId, third, newRootKey.publicKey).signature };
    const elsewhere = replaceRoot(filled(16, 1), rootKey, newRootKey.publicKey);
    for (const step of [forged, elsewhere]) {
      expect(() =>
        checkTrustHistory(repository, history({ root: rootKey }, { root: newRootKey, lineage: [step] })),
      ).toThrow(SignatureInvalid);
    }
  });

  it('refuses a statement that was replaced under one that follows it', () => {
    const [first, second] = history({ root: rootKey }, { root: rootKey });
    const replaced = parseTrust(0, repositoryId, encodeTrust({ ...firstTrust, retentionFloorDays: 0 }, rootKey));
    if (first === undefined || second === undefined) return expect.fail('no history');
    expect(() => checkTrustHistory(repository, [replaced, second])).toThrow(
      expect.objectContaining({ code: 'TRUST_BROKEN' }),
    );
  });
});

describe('a key record', () => {
  const nonce = filled(12, 0x71);
  const whole = (() => {
    using key = dataKey();
    return encodeKeyRecord(keyRecordFields, key, machineKeys(), agentKey, nonce);
  })();
  const parse = (bytes: Uint8Array) => parseKeyRecord(context, keyRecordFields.revision, bytes);

  it('comes back as it was written, and opens to the machine keys', () => {
    const anyWrap = fc.record({ provider: anyText, keyId: anyText, blob: fc.uint8Array({ maxLength: 80 }) });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 99_999_999 }),
        fc.nat({ max: 9999 }),
        anyNumber,
        fc.array(anyWrap, { minLength: 1, maxLength: 4 }),
        (epoch, revision, created, wraps) => {
          using key = dataKey();
          const fields = { context: { ...context, epoch }, revision, createdMs: created, wraps };
          const bytes = encodeKeyRecord(fields, key, machineKeys(), agentKey);
          const record = parseKeyRecord(fields.context, revision, bytes);
          expect({
            ...record,
            wraps: record.wraps.map((wrap) => ({ ...wrap, blob: Uint8Array.from(wrap.blob) })),
          }).toMatchObject(fields);
          const opened = openKeyRecord(record, key);
          expect([opened.digestKey, opened.saltKey].map(toHex)).toEqual(['09'.repeat(32), '0a'.repeat(32)]);
          expect(() => checkKeyRecordSigner(record, agentKey.publicKey)).not.toThrow();
        },
      ),
      { numRuns: timesTried(40) },
    );
  });

  it('is never trusted once it was damaged: its signature covers every byte', () => {
    expectNeverRead(whole, (bytes) => checkKeyRecordSigner(parse(bytes), agentKey.publicKey));
    expect(() => checkKeyRecordSigner(parse(whole), otherAgentKey.publicKey)).toThrow(SignatureInvalid);
  });

  it('is never opened once a byte that the data key vouches for was damaged', () => {
    const signedPart = whole.length - 1 - 64 - 16;
    for (const { what, bytes } of everyDamage(whole)) {
      if (toHex(bytes.subarray(0, signedPart)) === toHex(whole.subarray(0, signedPart))) continue;
      using key = dataKey();
      expect(['FORMAT_INVALID', 'RECORD_TAMPERED', 'COMMITMENT_MISMATCH']).toContain(
        refusal(() => openKeyRecord(parse(bytes), key), what),
      );
    }
  });

  it('says so when the unwrapped key is another, or an agent forged the mac', () => {
    using key = dataKey();
    using other = dataKey();
    other.bytes.fill(0x08);
    expect(() => openKeyRecord(parse(whole), other)).toThrow(CommitmentMismatch);
    const forged = Uint8Array.from(whole);
    forged.fill(0, whole.length - 113, whole.length - 81);
    expect(() => openKeyRecord(parse(forged), key)).toThrow(RecordTampered);
  });

  it('stands only in its own place, and has a wrap', () => {
    using key = dataKey();
    const places = [
      [{ ...context, epoch: 4 }, 2],
      [{ ...context, machineId: filled(16, 1) }, 2],
      [{ ...context, repositoryId: filled(16, 1) }, 2],
      [context, 3],
    ] as const;
    for (const [place, revision] of places)
      expect(refusal(() => parseKeyRecord(place, revision, whole), 'another place')).toBe('FORMAT_INVALID');
    expect(() => encodeKeyRecord({ ...keyRecordFields, wraps: [] }, key, machineKeys(), agentKey)).toThrow(RangeError);
  });

  it('never uses a key and nonce twice for two revisions, even when the random generator is stuck', () => {
    using key = dataKey();
    const sealed = [0, 1].map((revision) => {
      const bytes = encodeKeyRecord({ ...keyRecordFields, revision }, key, machineKeys(), agentKey, nonce);
      return toHex(parseKeyRecord(context, revision, bytes).sealedMachineKeys.subarray(12, 76));
    });
    expect(sealed[0]).not.toBe(sealed[1]);
  });
});

describe('a chain entry', () => {
  const read = (bytes: Uint8Array) => {
    const entry = parseEntry(repositoryId, machineId, 1000, bytes);
    checkEntrySignature(entry, agentKey.publicKey);
    return entry;
  };
  const epoch = fc.integer({ min: 1, max: 99_999_999 });
  const anyBody: fc.Arbitrary<EntryBody> = fc.oneof(
    fc.record({
      type: fc.constant('begin' as const),
      adopts: fc.option(anyNumber),
      epoch,
      keyRecordDigest: bytesOf(32),
    }),
    fc.record({
      type: fc.constant('publish' as const),
      epoch,
      watermark: anyNumber,
      immutableUntilMs: anyNumber,
      sealedManifest: fc.uint8Array({ maxLength: 200 }),
    }),
    fc
      .uniqueArray(anyNumber, { minLength: 1, maxLength: 20 })
      .map((points) => ({ type: 'prune' as const, points: points.sort((a, b) => a - b) })),
    fc.record({ type: fc.constant('lock' as const), generation: anyNumber, untilMs: anyNumber }),
    fc.record({ type: fc.constant('rekey' as const), epoch, keyRecordDigest: bytesOf(32) }),
  );
  const anyControl: fc.Arbitrary<EntryFields['control']> = fc.oneof(
    fc.record({ inline: fc.uint8Array({ maxLength: 300 }) }),
    fc.record({ length: fc.integer({ min: 65_536 + 46 + 1 }), sha256: bytesOf(32) }),
  );

  it('comes back as it was written, whatever it says', () => {
    fc.assert(
      fc.property(
        anyBody,
        anyControl,
        anyNumber,
        bytesOf(32),
        bytesOf(16),
        anyNumber,
        (body, control, timeMs, previous, nonce, trust) => {
          const fields: EntryFields = { ...entryFields(body.type), body, control, timeMs, previous, nonce, trust };
          const bytes = encodeEntry(fields, agentKey);
          const { signerKeyId, signature: _, bytes: kept, digest, ...parsed } = read(bytes);
          expect(parsed).toEqual(fields);
          expect([signerKeyId, kept, digest].map(toHex)).toEqual(
            [keyIdOf(agentKey.publicKey), bytes, sha256(bytes)].map(toHex),
          );
          expect(toHex(encodeEntry(parsed, agentKey))).toBe(toHex(bytes));
        },
      ),
    );
  });

  it.each(['begin', 'publish', 'prune', 'lock', 'rekey'] as const)(
    'of type %s is never read once it was damaged',
    (type) => {
      expectNeverRead(encodeEntry(entryFields(type), agentKey), read);
    },
  );

  it('stands only in its own place', () => {
    const bytes = encodeEntry(entryFields('lock'), agentKey);
    expect(refusal(() => parseEntry(repositoryId, machineId, 1001, bytes), 'another seq')).toBe('FORMAT_INVALID');
    expect(refusal(() => parseEntry(repositoryId, filled(16, 1), 1000, bytes), 'another machine')).toBe(
      'FORMAT_INVALID',
    );
    expect(refusal(() => parseEntry(filled(16, 1), machineId, 1000, bytes), 'another repository')).toBe(
      'FORMAT_INVALID',
    );
    expect(() =>
      checkEntrySignature(parseEntry(repositoryId, machineId, 1000, bytes), otherAgentKey.publicKey),
    ).toThrow(SignatureInvalid);
  });

  const written = (type: EntryBody['type'], change: Partial<EntryFields>) => entryFields(type, change);
  it.each([
    ['a begin whose tenure is not its own number', written('begin', { tenure: 12 })],
    ['another entry that claims to open a tenure', written('lock', { tenure: 1000 })],
    ['a tenure that begins later', written('lock', { tenure: 1001 })],
    ['a prune without points', written('prune', { body: { type: 'prune', points: [] } })],
    ['a prune with points out of order', written('prune', { body: { type: 'prune', points: [4, 3] } })],
    ['a prune with a point twice', written('prune', { body: { type: 'prune', points: [4, 4] } })],
    ['key epoch 0', written('rekey', { body: { ...bodies.rekey, epoch: 0 } as EntryBody })],
    [
      'a key epoch that no name can hold',
      written('rekey', { body: { ...bodies.rekey, epoch: 100_000_000 } as EntryBody }),
    ],
    ['inline control data above 64 KiB', written('publish', { control: { inline: filled(65_537, 0) } })],
    [
      'a control object that belongs inline',
      written('publish', { control: { length: 65_536 + 46, sha256: filled(32, 0) } }),
    ],
  ])('is refused: %s', (what, fields) => {
    expect(refusal(() => read(encodeEntry(fields, agentKey)), what)).toBe('FORMAT_INVALID');
  });

  it('is refused: a first entry with a predecessor', () => {
    const first = (previous: Uint8Array) => () =>
      parseEntry(
        repositoryId,
        machineId,
        1,
        encodeEntry(entryFields('begin', { seq: 1, tenure: 1, previous }), agentKey),
      );
    expect(first(new Uint8Array(32))).not.toThrow();
    expect(refusal(first(filled(32, 1)), 'a predecessor')).toBe('FORMAT_INVALID');
  });
});
