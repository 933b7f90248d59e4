import { createHash } from 'node:crypto';
import type { SigningKey } from '../../crypto/signing.ts';
import { type EntryBody, type EntryFields, encodeEntry } from '../../replica/chain-entry.ts';
import { toHex } from '../../replica/encoding.ts';
import { encodeKeyRecord } from '../../replica/key-record.ts';
import { encodeRepository } from '../../replica/repository.ts';
import { encodeTrust, type RootReplacement, replaceRoot, type TrustStatement } from '../../replica/trust.ts';
import { joined } from './damage.ts';
import {
  agentKey,
  bodies,
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
  signingKeyOf,
} from './specimens.ts';
import { bytesGiven, changed, cut, flipped, ids, keyed, longer, type VectorCase, withBroken } from './vector-case.ts';
import type { Given } from './vector-readers.ts';

/** Objects that are signed: sections 3, 4, 5 and 8. */

export function repositories(): readonly VectorCase[] {
  const bytes = encodeRepository({ repositoryId, createdMs, firstRoot: rootKey.publicKey }, rootKey);
  const good: VectorCase = {
    name: 'repository',
    about: 'A repository descriptor.',
    section: '3',
    kind: 'repository',
    given: bytesGiven(bytes),
  };
  return withBroken(good, {
    magic: ['Another magic.', changed(bytes, 0, 0x47)],
    version: ['Version 2.', changed(bytes, 5, 2)],
    'large-time': ['A time above 2^53-1.', changed(bytes, 22, 0xff)],
    algorithm: ['A signature algorithm that this version of the format does not know.', changed(bytes, 30, 4)],
    id: ['One bit of the repository id flipped.', flipped(bytes, 6)],
    signature: ['One bit of the signature flipped.', flipped(bytes, -1)],
    cut: ['The last byte is missing.', cut(bytes)],
    longer: ['A byte too many.', longer(bytes)],
  });
}

const firstTrust: TrustStatement = {
  ...{ repositoryId, n: 0, previous: new Uint8Array(32), createdMs, root: rootKey.publicKey, lineage: [] },
  ...{
    recoveryPublicKey: filled(40, 0x30),
    agents: [{ key: agentKey.publicKey, revoked: null }],
    retentionFloorDays: 30,
  },
};

function nextTrust(
  before: Uint8Array,
  n: number,
  root: SigningKey,
  lineage: readonly RootReplacement[],
  change: Partial<TrustStatement> = {},
): Uint8Array {
  const previous = createHash('sha256').update(before).digest();
  return encodeTrust({ ...firstTrust, n, previous, root: root.publicKey, lineage, ...change }, root);
}

export function trusts(): readonly VectorCase[] {
  const first = encodeTrust(firstTrust, rootKey);
  const lineage = [replaceRoot(repositoryId, rootKey, newRootKey.publicKey)];
  const revoked = [{ machineId, lastSeq: 300, digest: filled(32, 0x62) }];
  const agents = [...firstTrust.agents, { key: otherAgentKey.publicKey, revoked }];
  const second = nextTrust(first, 1, newRootKey, lineage, { agents });
  const about = 'The first trust statement. (The recovery public key is a stand-in here.)';
  const good: VectorCase = {
    name: 'trust-first',
    about,
    section: '4',
    kind: 'trust',
    given: { n: 0, repositoryId: toHex(repositoryId), ...bytesGiven(first) },
  };
  return [
    ...withBroken(good, {
      number: ['The statement under another name.', { n: 1 }],
      repository: ['The statement in another repository.', { repositoryId: '99'.repeat(16) }],
      signature: ['One bit of the retention floor flipped.', flipped(first, -66)],
      'agent-status': ['An agent status of 3.', changed(first, -67, 3)],
    }),
    {
      ...good,
      name: 'trust-root-replaced',
      about: 'The root was replaced; one agent is certified, one was revoked after entry 300 of one machine.',
      given: { n: 1, repositoryId: toHex(repositoryId), ...bytesGiven(second) },
    },
    ...trustHistories(first, second, lineage),
  ];
}

function trustHistories(
  first: Uint8Array,
  second: Uint8Array,
  lineage: readonly RootReplacement[],
): readonly VectorCase[] {
  const repository = toHex(encodeRepository({ repositoryId, createdMs, firstRoot: rootKey.publicKey }, rootKey));
  const thief = signingKeyOf(filled(32, 0xee));
  const elsewhere = nextTrust(second, 2, thief, [replaceRoot(repositoryId, rootKey, thief.publicKey)]);
  const back = nextTrust(second, 2, rootKey, []);
  const other = encodeTrust({ ...firstTrust, retentionFloorDays: 0 }, rootKey);
  const third = nextTrust(second, 2, newRootKey, lineage);
  const statements = (...list: readonly Uint8Array[]): Given => ({ statements: list.map(toHex) });
  const good: VectorCase = {
    name: 'trust-history',
    about: 'All statements of a repository, from 0 on, with one replacement of the root.',
    section: '4',
    kind: 'trust-history',
    given: { repository, ...statements(first, second, third) },
  };
  return withBroken(good, {
    'old-root-returns': ['The replaced root writes itself back in.', statements(first, second, back)],
    'old-root-names-another': ['The replaced root names another successor.', statements(first, second, elsewhere)],
    'statement-replaced': ['Statement 0 was replaced under its successor.', statements(other, second, third)],
    'statement-missing': ['Statement 1 is missing.', statements(first, third)],
  });
}

export function keyRecords(): readonly VectorCase[] {
  using key = dataKey();
  const bytes = encodeKeyRecord(keyRecordFields, key, machineKeys(), agentKey, filled(12, 0x71));
  const good: VectorCase = {
    name: 'key-record',
    about: 'Revision 2 of a key record with two wraps, which are stand-ins here.',
    section: '5',
    kind: 'key-record',
    given: { ...keyed, revision: 2, agent: toHex(agentKey.publicKey.bytes), ...bytesGiven(bytes) },
  };
  return withBroken(good, {
    epoch: ['The record of epoch 3 under the name of epoch 4.', { epoch: 4 }],
    revision: ['Revision 2 under the name of revision 3.', { revision: 3 }],
    suite: ['Suite 2.', changed(bytes, 7, 2)],
    'data-key': ['Another data key than the record was made for.', { dataKey: '08'.repeat(32) }],
    wrap: ['One bit of a wrap flipped.', flipped(bytes, 240)],
    agent: ['Signed by another agent.', { agent: toHex(otherAgentKey.publicKey.bytes) }],
    'no-wraps': ['No wraps.', bytesGiven(joined(bytes.subarray(0, 180), [0], bytes.subarray(-145)))],
    'lying-count': ['127 wraps are promised.', changed(bytes, 180, 0x7f)],
  });
}

export function entries(): readonly VectorCase[] {
  const agent = toHex(agentKey.publicKey.bytes);
  const entry = (type: EntryBody['type'], change: Partial<EntryFields> = {}): Uint8Array =>
    encodeEntry(entryFields(type, change), agentKey);
  const caseOf = (name: string, about: string, bytes: Uint8Array): VectorCase => ({
    ...{ name, about, section: '8', kind: 'entry' },
    given: { ...ids, seq: 1000, agent, ...bytesGiven(bytes) },
  });
  const publish = entry('publish');
  const broken = (name: string, about: string, type: EntryBody['type'], change: Partial<EntryFields>): VectorCase =>
    caseOf(`entry-${type}.broken-${name}`, about, entry(type, change));
  return [
    caseOf('entry-begin', 'Opens tenure 1000, adopts tenure 9.', entry('begin')),
    ...withBroken(
      caseOf('entry-publish', 'Publishes a recovery point; the sealed manifest is a stand-in here.', publish),
      {
        seq: ['The entry under another number.', { seq: 1001 }],
        machine: ['The entry in the chain of another machine.', { machineId: '99'.repeat(16) }],
        agent: ['Signed by another agent.', { agent: toHex(otherAgentKey.publicKey.bytes) }],
        type: ['An unknown type.', changed(publish, 6, 6)],
        previous: ['One bit of the predecessor’s digest flipped.', flipped(publish, 47)],
        time: ['One bit of the time flipped.', flipped(publish, 102)],
        signature: ['One bit of the signature flipped.', flipped(publish, -1)],
        cut: ['The last byte is missing.', cut(publish)],
        longer: ['A byte too many.', longer(publish)],
      },
    ),
    caseOf(
      'entry-publish-control-object',
      'A publish whose control data is an object of its own.',
      entry('publish', { control: { length: 100_000, sha256: filled(32, 0x68) } }),
    ),
    broken('control-belongs-inline', 'A control object that is short enough to stand in the entry.', 'publish', {
      control: { length: 65_582, sha256: filled(32, 0x68) },
    }),
    caseOf('entry-prune', 'Drops points 4, 7 and 300.', entry('prune')),
    broken('disordered', 'Points out of order.', 'prune', { body: { type: 'prune', points: [7, 4] } }),
    broken('empty', 'No points.', 'prune', { body: { type: 'prune', points: [] } }),
    caseOf('entry-lock', 'A generation of object locks.', entry('lock')),
    caseOf('entry-rekey', 'Key epoch 4 begins.', entry('rekey')),
    broken('epoch-0', 'Key epoch 0.', 'rekey', {
      body: { type: 'rekey', epoch: 0, keyRecordDigest: filled(32, 0x45) },
    }),
    broken('tenure', 'A begin whose tenure is not its own number.', 'begin', { tenure: 12 }),
    broken('opens-a-tenure', 'A lock that claims to open a tenure.', 'lock', { tenure: 1000, body: bodies.lock }),
  ];
}
